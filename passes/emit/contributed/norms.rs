//! Norms, with the sum before them: `SimplifiedLayerNormalization`, `SkipSimplifiedLayerNormalization`
//! and `SkipLayerNormalization`.

use planish_ir::{Graph, Model, Node, NodeId, ValueId};
use planish_kernels::MICROSOFT;
use planish_kernels::infer::{Facts, infer};

use crate::emit::EmitError;

/// `RMSNormalization` and `LayerNormalization` behind a sum of two equal shapes take the sum in;
/// other `RMSNormalization` nodes become `SimplifiedLayerNormalization`, which ONNX Runtime keeps
/// in ONNX's own domain. Returns how many.
pub(super) fn lower_norms(model: &mut Model) -> Result<usize, EmitError> {
    let facts = infer(model).map_err(|error| EmitError::Infer(error.to_string()))?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        if !graph.contains_node(id) {
            continue;
        }
        let rewritten = lower_skip(graph, &facts, id).or_else(|| lower_simplified(graph, id));
        n_rewrites += usize::from(rewritten.is_some());
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// The norm is over the last axis alone.
fn is_norm(node: &Node, op_type: &str, facts: Option<(&Facts, ValueId)>) -> bool {
    let axis = node.int("axis", -1);
    let is_last = |(facts, x): (&Facts, ValueId)| {
        facts.get(x).rank().is_some_and(|rank| axis == rank as i64 - 1)
    };
    node.is(op_type) && (axis == -1 || facts.is_some_and(is_last))
}

fn lower_simplified(graph: &mut Graph, id: NodeId) -> Option<()> {
    let node = graph.node(id).clone();
    if !is_norm(&node, "RMSNormalization", None) {
        return None;
    }
    let inputs = node.inputs.clone();
    let norm = Node::new("SimplifiedLayerNormalization", inputs)
        .with_name(node.name.clone())
        .with("axis", -1i64)
        .with("epsilon", node.float("epsilon", 1e-5))
        .with("stash_type", 1i64)
        .with_outputs(node.outputs);
    graph.replace_node(id, norm).ok()?;
    Some(())
}

fn lower_skip(graph: &mut Graph, facts: &Facts, id: NodeId) -> Option<()> {
    let node = graph.node(id).clone();
    let x = node.input(0)?;
    let at = Some((facts, x));
    let op_type = if is_norm(&node, "RMSNormalization", at) {
        "SkipSimplifiedLayerNormalization"
    } else if is_norm(&node, "LayerNormalization", at) && node.output(1).is_none() {
        "SkipLayerNormalization"
    } else {
        return None;
    };
    let (add, _) = graph.producer(x)?;
    let sum = graph.node(add).clone();
    let (a, b) = (sum.input(0)?, sum.input(1)?);
    let same = |v| facts.shape(v) == facts.shape(x) && facts.get(x).rank() == Some(3);
    if !sum.is("Add") || !same(a) || !same(b) || graph.is_output(x) {
        return None;
    }
    let mut inputs = vec![Some(a), Some(b)];
    inputs.extend(node.inputs[1..].iter().copied());
    graph.remove_node(add);
    let skip = Node::new(op_type, inputs)
        .with_domain(MICROSOFT)
        .with_name(node.name.clone())
        .with("epsilon", node.float("epsilon", 1e-5))
        .with_outputs(vec![node.output(0), None, None, Some(x)]);
    let id = graph.replace_node(id, skip).ok()?;
    if graph.users(x).is_empty() {
        drop_sum(graph, id);
    }
    Some(())
}

/// Nobody reads the sum: it is not asked for.
fn drop_sum(graph: &mut Graph, id: NodeId) {
    let mut node = graph.node(id).clone();
    node.outputs.truncate(1);
    graph.replace_node(id, node).expect("the output was just freed");
}
