//! Transforms in ONNX's own operators.

use planish_ir::{Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::DOMAIN;
use planish_kernels::infer::infer;

use super::EmitError;
use super::used::int64s;

/// Writes each `Transform`, `TransformLeft` and `TransformHeads` of the main graph as a `Reshape`
/// to rows of matrices, one `MatMul` for each factor, and a `Reshape` back. Returns how many.
///
/// # Errors
/// If shapes contradict each other, or a factor is no constant matrix.
pub(super) fn expand_transforms(model: &mut Model) -> Result<usize, EmitError> {
    let facts = infer(model).map_err(|error| EmitError::Infer(error.to_string()))?;
    let graph = &mut model.graph;
    let is_transform = |id: &NodeId| {
        let node = graph.node(*id);
        let known = ["Transform", "TransformLeft", "TransformHeads"];
        node.domain == DOMAIN && known.contains(&node.op_type.as_str())
    };
    let found: Vec<NodeId> = graph.node_ids().filter(is_transform).collect();
    for id in &found {
        let x = graph.node(*id).input(0);
        let shape = x.and_then(|x| facts.get(x).shape).unwrap_or_default();
        let channels = shape.last().and_then(|dim| dim.as_const());
        let expanded = channels.and_then(|n| expand(graph, *id, shape.len() - 1, n));
        if expanded.is_none() {
            return Err(EmitError::NoFunction { node: graph.node(*id).describe() });
        }
    }
    Ok(found.len())
}

/// Expands one transform of `channels` channels behind `leading` axes; `None` where a factor is no
/// constant matrix.
fn expand(graph: &mut Graph, id: NodeId, leading: usize, channels: i64) -> Option<()> {
    let node = graph.node(id).clone();
    let (x, output) = (node.input(0)?, node.output(0)?);
    let name = graph.value(output).name.clone();
    let heads = node.op_type == "TransformHeads";
    let left = if heads { None } else { Some(transposed(graph, node.input(1)?)?) };
    let right = if heads { node.input(1) } else { node.input(2) };
    let n1 = left.as_ref().map(|matrix| matrix.shape()[0] as i64);
    let n2 = match right {
        Some(right) => graph.constant(right)?.shape()[0] as i64,
        None => channels.checked_div(n1.unwrap_or(1))?,
    };
    let mut rows = vec![0i64; leading];
    rows.extend([channels.checked_div(n2)?, n2]);
    let mut y = reshape(graph, &name, x, &rows);
    if let Some(right) = right {
        y = graph.add_op(&format!("{name}/right"), Node::new("MatMul", vec![Some(y), Some(right)]));
    }
    if let Some(left) = left {
        let left = graph.add_constant(&format!("{name}_p1"), left);
        y = graph.add_op(&format!("{name}/left"), Node::new("MatMul", vec![Some(left), Some(y)]));
    }
    let mut flat = vec![0i64; leading];
    flat.push(channels);
    let shape = graph.add_constant(&format!("{name}_shape"), int64s(&flat));
    let back = Node::new("Reshape", vec![Some(y), Some(shape)]);
    graph.replace_node(id, back.with_name(node.name).with_outputs(node.outputs)).ok()?;
    Some(())
}

fn reshape(graph: &mut Graph, name: &str, x: ValueId, shape: &[i64]) -> ValueId {
    let shape = graph.add_constant(&format!("{name}_rows"), int64s(shape));
    graph.add_op(&format!("{name}/rows"), Node::new("Reshape", vec![Some(x), Some(shape)]))
}

/// The transpose of a constant f32 matrix.
fn transposed(graph: &Graph, value: ValueId) -> Option<Tensor> {
    let tensor = graph.constant(value)?;
    let [rows, columns] = tensor.shape()[..] else { return None };
    let data = tensor.to_f32_vec().ok()?;
    let turned = (0..rows * columns).map(|i| data[i % rows * columns + i / rows]).collect();
    Some(Tensor::from_vec(&[columns, rows], turned))
}
