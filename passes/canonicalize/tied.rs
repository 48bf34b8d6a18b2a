//! A head and an embedding that share one table.

use planish_ir::{Graph, Model, Node, ValueId};

use super::linear::transpose_2d;
use crate::pass::{PassContext, PassError};

/// Brings a table that is stored for the head alone (`[hidden, vocab]`, transposed for the
/// embedding's Gather) to the common form: `[vocab, hidden]`, read by Gather and transposed for
/// the head.
pub(super) fn share_tied_weights(
    model: &mut Model,
    _: &mut PassContext,
) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        if !graph.contains_node(id) {
            continue;
        }
        let node = graph.node(id);
        let Some(table) = node.input(0).filter(|_| node.is("Gather") && node.int("axis", 0) == 0)
        else {
            continue;
        };
        if let Some(stored) = transposed_constant(graph, table) {
            n_rewrites += usize::from(turn(graph, stored, table));
        }
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// The constant that `value` is the transpose of.
fn transposed_constant(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let node = graph.producer_node(value).filter(|n| n.is("Transpose"))?;
    let stored = node.input(0)?;
    let is_matrix = graph.constant(stored)?.shape().len() == 2;
    (is_matrix && node.ints("perm").is_none_or(|p| p == [1, 0])).then_some(stored)
}

/// Stores the transpose of `stored`; `table` (its transpose) becomes that, the other users read
/// it transposed back.
fn turn(graph: &mut Graph, stored: ValueId, table: ValueId) -> bool {
    let Some(turned) = graph.constant(stored).and_then(transpose_2d) else { return false };
    let name = graph.value(stored).name.clone();
    let turned = graph.add_constant(&name, turned);
    graph.replace_value(table, turned);
    graph.remove_dead();
    if graph.contains_value(stored) && !graph.users(stored).is_empty() {
        let back = graph
            .add_op(&name, Node::new("Transpose", vec![Some(turned)]).with("perm", vec![1, 0]));
        graph.replace_value(stored, back);
    }
    graph.remove_dead();
    true
}
