//! Constants: one form for all, and what follows from them.

use std::collections::BTreeMap;

use planish_ir::{Attribute, Graph, Model, NodeId, Tensor, TensorType, ValueId, ValueType};

use crate::pass::{PassContext, PassError};

/// Elements beyond which a computed constant would bloat the file.
const MAX_FOLDED: usize = 65_536;

/// Turns `Constant` nodes into initializers.
pub(super) fn inline_constants(model: &mut Model, _: &mut PassContext) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let nodes: Vec<NodeId> = graph.node_ids().filter(|id| graph.node(*id).is("Constant")).collect();
    let mut n_rewrites = 0;
    for id in nodes {
        let node = graph.node(id);
        let [Some(output)] = node.outputs[..] else { continue };
        let Some(tensor) = tensor_of(&node.attributes) else { continue };
        if !graph.is_output(output) {
            graph.remove_node(id);
            make_constant(graph, output, tensor);
            n_rewrites += 1;
        }
    }
    Ok(n_rewrites)
}

/// The tensor that a `Constant` node's attributes mean.
fn tensor_of(attributes: &BTreeMap<String, Attribute>) -> Option<Tensor> {
    let (name, value) = attributes.iter().next()?;
    Some(match (name.as_str(), value) {
        ("value", Attribute::Tensor(tensor)) => tensor.clone(),
        ("value_int", Attribute::Int(value)) => Tensor::scalar(*value),
        ("value_ints", Attribute::Ints(values)) => {
            Tensor::from_vec(&[values.len()], values.clone())
        }
        ("value_float", Attribute::Float(value)) => Tensor::scalar(*value),
        ("value_floats", Attribute::Floats(values)) => {
            Tensor::from_vec(&[values.len()], values.clone())
        }
        _ => return None,
    })
}

/// Gives a value that nothing writes its data.
fn make_constant(graph: &mut Graph, value: ValueId, tensor: Tensor) {
    let value = graph.value_mut(value);
    value.ty = ValueType::Tensor(TensorType::of(&tensor));
    value.constant = Some(tensor);
}

/// Replaces values that shape inference could compute by initializers.
pub(super) fn fold_constants(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let outputs = graph.node(id).outputs.clone();
        let [Some(output)] = outputs[..] else { continue };
        let Some(tensor) = facts.get(output).constant else { continue };
        let is_weight = is_of_codes(graph, id) || is_shared_transpose(graph, id);
        if tensor.n_elements() > MAX_FOLDED || is_weight || graph.is_output(output) {
            continue;
        }
        graph.remove_node(id);
        make_constant(graph, output, tensor);
        n_rewrites += 1;
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// Codes that are dequantised, or then transposed: they stay codes.
fn is_of_codes(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let source = || graph.producer_node(node.input(0)?);
    let turns = node.is("Transpose") && source().is_some_and(|n| n.is("DequantizeLinear"));
    node.is("DequantizeLinear") || turns
}

/// A matrix that is transposed here and read as it is elsewhere: the table of an embedding and a
/// head, which is to stay one.
fn is_shared_transpose(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    node.is("Transpose") && node.input(0).is_some_and(|source| graph.users(source).len() > 1)
}

/// Writes the inferred types onto the values that have none, or a less telling one.
pub(super) fn declare_types(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.value_ids().collect::<Vec<_>>() {
        let value = graph.value(id);
        if value.constant.is_some() || matches!(value.ty, ValueType::Other(_)) || value.declared {
            continue;
        }
        let inferred = facts.get(id).to_type();
        if inferred != ValueType::Unknown && inferred != value.ty {
            graph.value_mut(id).ty = inferred;
            n_rewrites += 1;
        }
    }
    Ok(n_rewrites)
}

/// A rank-1 INT64 constant.
pub(super) fn int64s(values: &[i64]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}
