//! What the tests of the lowering passes share.

use planish_ir::{DataType, Dim, Graph, Model, Node, ValueId, ValueType, verify};

use crate::pass::{PassContext, PassError};

/// A model after one pass.
pub(super) struct Lowered {
    pub model: Model,
}

/// Runs `pass` on a graph of f32 inputs (names and sizes) and one output.
pub(super) fn lowered(
    pass: fn(&mut Model, &mut PassContext) -> Result<usize, PassError>,
    inputs: &[(&str, &[&str])],
    build: impl FnOnce(&mut Graph, &[ValueId]) -> ValueId,
) -> Lowered {
    let mut model = model();
    let graph = &mut model.graph;
    let inputs: Vec<ValueId> =
        inputs.iter().map(|(name, shape)| input(graph, name, DataType::F32, shape)).collect();
    let output = build(graph, &inputs);
    graph.outputs.push(output);
    pass(&mut model, &mut PassContext::default()).unwrap();
    verify(&model).unwrap();
    Lowered { model }
}

/// An empty model of the newest operator sets.
pub(super) fn model() -> Model {
    let mut model = Model { graph: Graph::new("g"), ..Model::default() };
    model.set_opset("", 24);
    model.set_opset(planish_kernels::DOMAIN, 1);
    model
}

/// Adds a graph input.
pub(super) fn input(graph: &mut Graph, name: &str, dtype: DataType, shape: &[&str]) -> ValueId {
    let dims = shape.iter().map(|d| Dim::parse(d)).collect();
    let value = graph.new_value(name, ValueType::tensor(dtype, dims));
    graph.inputs.push(value);
    value
}

impl Lowered {
    /// Operators with their domains, in topological order.
    pub fn ops(&self) -> Vec<String> {
        let graph = &self.model.graph;
        let name = |node: &Node| match node.domain.as_str() {
            "" => node.op_type.clone(),
            domain => format!("{domain}.{}", node.op_type),
        };
        graph.topological_order().unwrap().into_iter().map(|id| name(graph.node(id))).collect()
    }

    /// The only node of an operator.
    pub fn node(&self, op_type: &str) -> &Node {
        let graph = &self.model.graph;
        let mut found = graph.node_ids().filter(|id| graph.node(*id).op_type == op_type);
        let id = found.next().expect("a node of this operator");
        assert!(found.next().is_none(), "one node of this operator");
        graph.node(id)
    }
}
