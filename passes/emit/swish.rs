//! `Swish` in older operators.

use planish_ir::{Graph, Model, Node, NodeId, Tensor};

/// The version of ONNX's operator set that brought `Swish`.
pub(super) const SWISH_OPSET: i64 = 24;

/// `Swish(x)` with `alpha` → `Mul(x, Sigmoid(alpha · x))`, in the main graph. Returns how many.
pub(super) fn lower_swish(model: &mut Model) -> usize {
    let graph = &mut model.graph;
    let found: Vec<NodeId> = graph.node_ids().filter(|id| graph.node(*id).is("Swish")).collect();
    found.iter().filter(|id| lower(graph, **id).is_some()).count()
}

fn lower(graph: &mut Graph, id: NodeId) -> Option<()> {
    let node = graph.node(id).clone();
    let (x, output) = (node.input(0)?, node.output(0)?);
    let name = graph.value(output).name.clone();
    let alpha = node.float("alpha", 1.0);
    let scaled = if alpha == 1.0 {
        x
    } else {
        let alpha = graph.add_constant(&format!("{name}_alpha"), Tensor::scalar(alpha));
        graph.add_op(&format!("{name}_scaled"), Node::new("Mul", vec![Some(x), Some(alpha)]))
    };
    let sigmoid =
        graph.add_op(&format!("{name}_sigmoid"), Node::new("Sigmoid", vec![Some(scaled)]));
    let product = Node::new("Mul", vec![Some(x), Some(sigmoid)]);
    graph.replace_node(id, product.with_name(node.name).with_outputs(node.outputs)).ok()?;
    Some(())
}
