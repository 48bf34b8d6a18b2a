//! The layer that makes the logits.

use planish_ir::{Graph, NodeId, ValueId};

use super::Head;
use crate::half::is_weight_type;

/// The last matrix product on the residual stream whose right side is a constant, or the
/// transpose of one.
pub(super) fn find_head(graph: &Graph, chain: &[ValueId]) -> Option<Head> {
    chain.iter().rev().find_map(|value| as_head(graph, graph.producer(*value)?.0))
}

fn as_head(graph: &Graph, id: NodeId) -> Option<Head> {
    let node = graph.node(id);
    let right = node.input(1).filter(|_| node.is("MatMul"))?;
    let is_weight = |value: ValueId| {
        let weight = graph.constant(value);
        weight.is_some_and(|t| t.shape().len() == 2 && is_weight_type(t.dtype()))
    };
    if is_weight(right) {
        return Some(Head { node: id, weight: right, transpose: None, embeddings: Vec::new() });
    }
    let (transpose, _) = graph.producer(right)?;
    let turn = graph.node(transpose);
    let weight = turn.input(0).filter(|weight| turn.is("Transpose") && is_weight(*weight))?;
    let embeddings = lookups(graph, weight);
    turn.ints("perm").is_none_or(|perm| perm == [1, 0]).then_some(Head {
        node: id,
        weight,
        transpose: Some(transpose),
        embeddings,
    })
}

/// The `Gather` nodes that read rows of the table.
fn lookups(graph: &Graph, table: ValueId) -> Vec<NodeId> {
    let users = graph.users(table).into_iter();
    let is_lookup = |id: &NodeId| {
        let node = graph.node(*id);
        node.is("Gather") && node.int("axis", 0) == 0
    };
    users.filter(|(_, index)| *index == 0).map(|(id, _)| id).filter(is_lookup).collect()
}
