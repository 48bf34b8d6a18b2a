//! Linear layers, found by their shape in the graph.

use std::collections::HashSet;

use planish_ir::{Graph, Node, NodeId, ValueId};

use super::{Bias, LinearLayer, PartColumns};
use crate::half::is_weight_type;

/// Why a node that multiplies matrices is no linear layer; `None` for every other node.
pub(super) fn reason_against(graph: &Graph, node: &Node) -> Option<String> {
    if !["MatMul", "Gemm", "MatMulInteger", "MatMulNBits"].contains(&node.op_type.as_str()) {
        return None;
    }
    if !node.is("MatMul") {
        return Some(format!("{} was not brought to MatMul", node.op_type));
    }
    let constant = |index| node.input(index).and_then(|value| graph.constant(value));
    let reason = match (constant(0), constant(1)) {
        (Some(_), _) => "its left side is a constant".to_owned(),
        (None, None) => "both inputs are activations".to_owned(),
        (None, Some(weight)) if weight.shape().len() != 2 => {
            format!("its weight has {} axes", weight.shape().len())
        }
        (None, Some(weight)) if !is_weight_type(weight.dtype()) => {
            format!("its weight is of type {}", weight.dtype())
        }
        (None, Some(weight)) if weight.n_elements() == 0 => "its weight is empty".to_owned(),
        _ => return None,
    };
    Some(reason)
}

/// Whether the largest of what the layer computes are picked, as a router does to choose experts:
/// a rounding error there does not shift the result, but takes another expert's.
pub(super) fn is_router(graph: &Graph, linear: &LinearLayer) -> bool {
    let passes_on = ["Softmax", "Sigmoid", "Cast", "Reshape", "Identity", "Add"];
    let mut pending = vec![linear.output];
    let mut seen = HashSet::new();
    while let Some(value) = pending.pop() {
        for (reader, index) in graph.users(value) {
            let node = graph.node(reader);
            if node.is("TopK") && index == 0 {
                return true;
            }
            if passes_on.iter().any(|op| node.is(op)) && seen.insert(reader) {
                pending.extend(node.output(0));
            }
        }
    }
    false
}

/// The linear layer whose product `id` computes, if it is one.
pub(super) fn linear_layer(graph: &Graph, id: NodeId) -> Option<LinearLayer> {
    let node = graph.node(id);
    if !node.is("MatMul") || reason_against(graph, node).is_some() {
        return None;
    }
    let (input, weight, product) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let [in_features, out_features] = graph.constant(weight)?.shape()[..] else { return None };
    let bias = find_bias(graph, product, out_features);
    let output = bias.and_then(|b| graph.node(b.node).output(0)).unwrap_or(product);
    let parts =
        split_parts(graph, output, out_features).unwrap_or_else(|| vec![(output, 0..out_features)]);
    let node = id;
    Some(LinearLayer { node, input, weight, in_features, out_features, bias, output, parts })
}

/// `Add(product, bias [n])` as the only reader of the product.
fn find_bias(graph: &Graph, product: ValueId, n: usize) -> Option<Bias> {
    let [(node, index)] = graph.users(product)[..] else { return None };
    let other = 1usize.checked_sub(index)?;
    let value = graph.node(node).input(other).filter(|_| graph.node(node).is("Add"))?;
    let fits = graph.constant(value)?.shape() == [n] && !graph.is_output(product);
    fits.then_some(Bias { node, index: other, value })
}

/// The outputs of a `Split` of the last axis that alone reads `output`, with their columns.
fn split_parts(graph: &Graph, output: ValueId, n: usize) -> Option<Vec<PartColumns>> {
    let [(id, 0)] = graph.users(output)[..] else { return None };
    let node = graph.node(id);
    let is_split = node.is("Split") && matches!(node.int("axis", 0), -1 | 2);
    let sizes = is_split.then(|| split_sizes(graph, node, n)).flatten()?;
    let mut parts = Vec::new();
    let mut start = 0usize;
    for (value, size) in node.outputs.iter().zip(sizes) {
        let end = start.checked_add(size).filter(|end| *end <= n)?;
        parts.push(((*value)?, start..end));
        start = end;
    }
    (!graph.is_output(output)).then_some(parts)
}

/// The sizes that a `Split` of `n` columns lists, or equal ones.
fn split_sizes(graph: &Graph, node: &Node, n: usize) -> Option<Vec<usize>> {
    if let Some(sizes) = node.input(1) {
        let sizes = graph.constant(sizes)?.to_i64_vec().ok()?;
        return sizes.into_iter().map(|size| usize::try_from(size).ok()).collect();
    }
    let n_parts = node.outputs.len();
    (n_parts > 0 && n.is_multiple_of(n_parts)).then(|| vec![n / n_parts; n_parts])
}
