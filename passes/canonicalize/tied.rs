//! A head and an embedding that share one table.

use planish_ir::{Graph, Model, Node, Tensor, ValueId};

use super::linear::transpose_2d;
use crate::pass::{PassContext, PassError};

/// Brings a table that is stored for the head alone (`[hidden, vocab]`, transposed for the
/// embedding's Gather), or once for each of them, to the common form: `[vocab, hidden]`, read by
/// Gather and transposed for the head.
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
        } else if graph.constant(table).is_some_and(|t| t.shape().len() == 2) {
            n_rewrites += share_copies(graph, table);
        }
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// Lets products with a constant that is the transpose of `table` read the table.
fn share_copies(graph: &mut Graph, table: ValueId) -> usize {
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node(id);
        let Some(weight) = node.input(1).filter(|_| node.is("MatMul")) else { continue };
        let pair = graph.constant(table).zip(graph.constant(weight));
        if !pair.is_some_and(|(table, weight)| is_transpose(table, weight)) {
            continue;
        }
        let hint = graph.value(weight).name.clone();
        let turned = Node::new("Transpose", vec![Some(table)]).with("perm", vec![1, 0]);
        let turned = graph.add_op(&hint, turned);
        graph.replace_value(weight, turned);
        n_rewrites += 1;
    }
    n_rewrites
}

/// Whether `b` `[columns, rows]` has the elements of `a` `[rows, columns]`.
fn is_transpose(a: &Tensor, b: &Tensor) -> bool {
    let &[rows, columns] = a.shape() else { return false };
    let width = a.dtype().bits() / 8;
    if b.shape() != [columns, rows] || a.dtype() != b.dtype() || width == 0 {
        return false;
    }
    if a.strings().is_some() || rows * columns == 0 {
        return false;
    }
    let (a, b) = (a.bytes(), b.bytes());
    let is_same = |row: usize, column: usize| {
        let (i, j) = ((row * columns + column) * width, (column * rows + row) * width);
        a[i..i + width] == b[j..j + width]
    };
    // Tables that differ do so in their first column: the rest is read for copies alone.
    (0..rows).all(|row| is_same(row, 0))
        && (0..rows).all(|row| (1..columns).all(|column| is_same(row, column)))
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
