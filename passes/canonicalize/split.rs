//! Slices that cut one product into parts.

use planish_ir::{Graph, Model, Node, NodeId, ValueId};
use planish_kernels::infer::Facts;

use super::constants::int64s;
use crate::pass::{PassContext, PassError};

/// Replaces the `Slice` nodes that cut the last axis of one value into adjoining parts (fused
/// q, k, v or gate, up) by one `Split`.
pub(super) fn lift_splits(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let Some(source) = graph.node(id).output(0) else { continue };
        let Some(parts) = partition(graph, &facts, source) else { continue };
        let sizes: Vec<i64> = parts.iter().map(|part| part.end - part.start).collect();
        let n_parts = parts.len();
        let sizes = graph.add_constant("split", int64s(&sizes));
        let node = Node::new("Split", vec![Some(source), Some(sizes)]).with("axis", -1);
        let name = graph.value(source).name.clone();
        let outputs = graph.add_op_n(&format!("{name}/part"), node, n_parts);
        for (part, output) in parts.iter().zip(outputs) {
            graph.replace_value(part.output, output);
        }
        n_rewrites += 1;
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

struct Part {
    start: i64,
    end: i64,
    output: ValueId,
}

/// The slices of `source` along its last axis, if they cover it without gap or overlap.
fn partition(graph: &Graph, facts: &Facts, source: ValueId) -> Option<Vec<Part>> {
    let width = facts.get(source).dim(-1)?.as_const().filter(|width| *width >= 0)?;
    let rank = facts.get(source).rank()? as i64;
    let users = graph.users(source);
    let slices = users.iter().filter(|(user, index)| *index == 0 && graph.node(*user).is("Slice"));
    let mut parts: Vec<Part> =
        slices.filter_map(|(user, _)| part(graph, facts, *user, rank, width)).collect();
    parts.sort_by_key(|part| part.start);
    parts.dedup_by_key(|part| (part.start, part.end));
    let adjoining = parts.windows(2).all(|pair| pair[0].end == pair[1].start);
    let whole = parts.first()?.start == 0 && parts.last()?.end == width;
    (parts.len() >= 2 && adjoining && whole).then_some(parts)
}

fn part(graph: &Graph, facts: &Facts, id: NodeId, rank: i64, width: i64) -> Option<Part> {
    let node = graph.node(id);
    let one = |index: usize| match facts.get(node.input(index)?).ints()?[..] {
        [value] => Some(value),
        _ => None,
    };
    let axis = one(3)?;
    if axis != -1 && axis != rank - 1 {
        return None;
    }
    if node.input(4).is_some() && one(4)? != 1 {
        return None;
    }
    let clamp =
        |bound: i64| (if bound < 0 { bound.saturating_add(width) } else { bound }).clamp(0, width);
    Some(Part { start: clamp(one(1)?), end: clamp(one(2)?), output: node.output(0)? })
}
