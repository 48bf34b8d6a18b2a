//! How many positions a graph has table rows for.

use planish_ir::{Graph, Node, ValueId};
use planish_kernels::MICROSOFT;

use super::roles::aliases;

/// Tables of fewer rows hold something else than positions, such as token types.
const MIN_ROWS: usize = 16;

/// The rows of the smallest table of positions: learned ones that a Gather reads, or rotary
/// tables.
pub(super) fn max_positions(graph: &Graph, tokens: ValueId) -> Option<usize> {
    let ids = aliases(graph, tokens);
    let rows = |node: &Node| match (node.domain.as_str(), node.op_type.as_str()) {
        ("", "Gather") if node.int("axis", 0) == 0 && !reads_any(node, 1, &ids) => {
            let indices = node.input(1).filter(|v| graph.constant(*v).is_none())?;
            let rows = rows_of(graph, node.input(0)?)?;
            Some(rows.saturating_sub(first_row(graph, indices)))
        }
        ("", "GatherElements") => rows_along(graph, node),
        ("", "RotaryEmbedding") if node.input(3).is_some() => rows_of(graph, node.input(1)?),
        (MICROSOFT, "RotaryEmbedding") => rows_of(graph, node.input(2)?),
        (MICROSOFT, "GroupQueryAttention") => rows_of(graph, node.input(7)?),
        _ => None,
    };
    graph.node_ids().filter_map(|id| rows(graph.node(id))).filter(|n| *n >= MIN_ROWS).min()
}

/// The rows of a constant matrix of floats.
fn rows_of(graph: &Graph, table: ValueId) -> Option<usize> {
    let table = graph.constant(table)?;
    (table.shape().len() == 2 && table.dtype().is_float()).then(|| table.shape()[0])
}

/// The row of the first position: some exporters' tables begin with rows that no position has (OPT).
/// Positions are counted by CumSum of a mask, which begins at 1, or begin at 0; what is added to them
/// on the way to the look-up are constants.
fn first_row(graph: &Graph, mut indices: ValueId) -> usize {
    let integer = |v: Option<ValueId>| {
        let tensor = graph.constant(v?).filter(|t| t.n_elements() == 1)?;
        tensor.as_slice::<i64>().ok()?.first().copied()
    };
    let mut first = 0;
    while let Some(node) = graph.producer_node(indices) {
        let moved = match node.op_type.as_str() {
            "Add" => integer(node.input(1)).or_else(|| integer(node.input(0))),
            "Sub" => integer(node.input(1)).map(|n| -n),
            _ => None,
        };
        first += moved.unwrap_or(0);
        let by_second = node.is("Add") && integer(node.input(1)).is_none() && moved.is_some();
        match node.op_type.as_str() {
            "CumSum" => return usize::try_from(first + 1).unwrap_or(0),
            "Slice" | "Reshape" | "Cast" | "Unsqueeze" | "Squeeze" | "Expand" | "Mul" => {}
            "Add" | "Sub" if moved.is_some() => {}
            _ => break,
        }
        let Some(next) = node.input(usize::from(by_second)) else { break };
        indices = next;
    }
    usize::try_from(first).unwrap_or(0)
}

/// The rows among which a GatherElements chooses: those of a constant `[1, rows, width]` of floats,
/// repeated for each sequence.
fn rows_along(graph: &Graph, node: &Node) -> Option<usize> {
    let mut table = node.input(0)?;
    while let Some(producer) = graph.producer_node(table) {
        let repeats = producer.is("Tile") || producer.is("Expand");
        table = producer.input(0).filter(|_| repeats)?;
    }
    let indices_vary = graph.constant(node.input(1)?).is_none();
    let table = graph.constant(table).filter(|t| indices_vary && t.dtype().is_float())?;
    match *table.shape() {
        [1, rows, _] if node.int("axis", 0) == 1 => Some(rows),
        _ => None,
    }
}

fn reads_any(node: &Node, index: usize, values: &[ValueId]) -> bool {
    node.input(index).is_some_and(|v| values.contains(&v))
}
