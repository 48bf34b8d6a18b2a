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
    let integer = |node: &Node, index: usize| {
        let tensor = graph.constant(node.input(index)?).filter(|t| t.n_elements() == 1)?;
        tensor.as_slice::<i64>().ok()?.first().copied()
    };
    // What a node adds, and to which of its inputs.
    let step = |node: &Node| match node.op_type.as_str() {
        "Add" => match integer(node, 1) {
            Some(n) => Some((n, 0)),
            None => integer(node, 0).map(|n| (n, 1)),
        },
        "Sub" => integer(node, 1).map(|n| (-n, 0)),
        "Slice" | "Reshape" | "Cast" | "Unsqueeze" | "Squeeze" | "Expand" | "Mul" => Some((0, 0)),
        _ => None,
    };
    let mut first = 0;
    while let Some(node) = graph.producer_node(indices) {
        if node.is("CumSum") {
            first += 1;
            break;
        }
        let Some((moved, input)) = step(node) else { break };
        let Some(next) = node.input(input) else { break };
        (first, indices) = (first + moved, next);
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
