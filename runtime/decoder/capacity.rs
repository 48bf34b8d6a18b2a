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
    let rows = |node: &Node| {
        let table = match (node.domain.as_str(), node.op_type.as_str()) {
            ("", "Gather") if node.int("axis", 0) == 0 && !reads_any(node, 1, &ids) => 0,
            ("", "RotaryEmbedding") if node.input(3).is_some() => 1,
            (MICROSOFT, "RotaryEmbedding") => 2,
            (MICROSOFT, "GroupQueryAttention") => 7,
            _ => return None,
        };
        let indices_vary = node.input(1).is_none_or(|v| graph.constant(v).is_none());
        let table = graph.constant(node.input(table)?)?;
        let is_table = table.shape().len() == 2 && (table.dtype().is_float());
        (is_table && (indices_vary || !node.is("Gather"))).then(|| table.shape()[0])
    };
    graph.node_ids().filter_map(|id| rows(graph.node(id))).filter(|n| *n >= MIN_ROWS).min()
}

fn reads_any(node: &Node, index: usize, values: &[ValueId]) -> bool {
    node.input(index).is_some_and(|v| values.contains(&v))
}
