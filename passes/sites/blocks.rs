//! Blocks: the pieces of the residual stream that repeat.

use std::collections::HashMap;
use std::ops::Range;

use planish_ir::{Graph, NodeId};

use super::stream::Stream;

/// The ranges of segments that make a block each, in order: the run of groups of segments, each
/// like the one before it, that covers most of the stream. Where nothing repeats, one block takes
/// all segments from the first to the last that `has_linear`.
pub(super) fn find_blocks(
    graph: &Graph,
    stream: &Stream,
    has_linear: impl Fn(&[NodeId]) -> bool,
) -> Vec<Range<usize>> {
    let with_linear: Vec<bool> = stream.segments.iter().map(|s| has_linear(s)).collect();
    let has_attention = |s: &Vec<NodeId>| s.iter().any(|id| graph.node(*id).is("Attention"));
    let with_attention: Vec<bool> = stream.segments.iter().map(has_attention).collect();
    let kinds = with_attention.iter().zip(&with_linear);
    let kinds = kinds.map(|kind| vec![format!("{kind:?}")]).collect();
    let parts_of = |describe: fn(&Graph, NodeId) -> Option<String>| {
        let parts = |segment: &Vec<NodeId>| {
            segment.iter().filter_map(|id| describe(graph, *id)).collect::<Vec<_>>()
        };
        stream.segments.iter().map(parts).collect::<Vec<_>>()
    };
    // The last one knows no more than whether a segment has an attention and linear layers: the first
    // layers of a mixture of experts may be without experts.
    let levels = [parts_of(describe), parts_of(describe_layer), kinds];
    let prints: Vec<Vec<usize>> = levels.into_iter().map(fingerprints).collect();
    if let Some(run) = best_run(&prints, &with_linear, &with_attention) {
        let block = |i: usize| run.start + i * run.period..run.start + (i + 1) * run.period;
        return (0..run.count).map(block).collect();
    }
    let first = with_linear.iter().position(|has| *has);
    let last = with_linear.iter().rposition(|has| *has);
    first.zip(last).map(|(first, last)| first..last + 1).into_iter().collect()
}

/// A number for each segment, equal for segments with equal parts.
fn fingerprints(segments: Vec<Vec<String>>) -> Vec<usize> {
    let mut numbers: HashMap<Vec<String>, usize> = HashMap::new();
    let number = |mut parts: Vec<String>| {
        // Equal pieces need not stand in equal order in the file.
        parts.sort_unstable();
        let next = numbers.len();
        *numbers.entry(parts).or_insert(next)
    };
    segments.into_iter().map(number).collect()
}

/// Operator and shapes of the constants that the node reads.
fn describe(graph: &Graph, id: NodeId) -> Option<String> {
    let node = graph.node(id);
    let constants = node.inputs.iter().flatten().filter_map(|input| graph.constant(*input));
    let shapes: Vec<&[usize]> = constants.map(|tensor| tensor.shape()).collect();
    Some(format!("{}.{} {shapes:?}", node.domain, node.op_type))
}

/// The same of products with weights and of attentions alone: in some models only every other
/// attention has positions, or a window.
fn describe_layer(graph: &Graph, id: NodeId) -> Option<String> {
    let node = graph.node(id);
    let has_weight = node.inputs.iter().flatten().any(|input| graph.constant(*input).is_some());
    let is_layer = node.is("Attention") || node.is("MatMul") && has_weight;
    is_layer.then(|| describe(graph, id)).flatten()
}

#[derive(Debug, PartialEq)]
struct Run {
    start: usize,
    period: usize,
    count: usize,
}

/// The longest run of segments that are alike at one of several levels, from the strictest on: a
/// looser one counts where it covers more, or as much in shorter groups, with an attention in each.
fn best_run(levels: &[Vec<usize>], with_linear: &[bool], with_attention: &[bool]) -> Option<Run> {
    let mut best: Option<Run> = None;
    for (level, prints) in levels.iter().enumerate() {
        let useful = if level == 0 { with_linear } else { with_attention };
        let Some(run) = longest_run(prints, useful) else { continue };
        let is_better = best.as_ref().is_none_or(|best| {
            let (covered, before) = (run.count * run.period, best.count * best.period);
            covered > before || covered == before && run.period < best.period
        });
        if is_better {
            best = Some(run);
        }
    }
    best
}

/// The run of equal groups that covers most segments, has a group with a `useful` segment, and among
/// those the shortest group and the earliest start.
fn longest_run(prints: &[usize], useful: &[bool]) -> Option<Run> {
    let n = prints.len();
    let mut best: Option<Run> = None;
    for period in 1..=n / 2 {
        for start in 0..=n - 2 * period {
            let group = |i: usize| prints.get(start + i * period..start + (i + 1) * period);
            let count = 1 + (1..).take_while(|i| group(*i) == group(0)).count();
            let is_useful = count > 1 && useful[start..start + period].contains(&true);
            if is_useful && best.as_ref().is_none_or(|b| count * period > b.count * b.period) {
                best = Some(Run { start, period, count });
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(prints: &[usize]) -> Option<Run> {
        longest_run(prints, &vec![true; prints.len()])
    }

    #[test]
    fn the_shortest_period_of_the_longest_run_is_found() {
        let run = run(&[9, 1, 2, 1, 2, 1, 2, 1, 2, 7, 8]);
        assert_eq!(run, Some(Run { start: 1, period: 2, count: 4 }));
    }

    #[test]
    fn looser_levels_count_where_they_find_more() {
        let best = |levels: &[&[usize]]| {
            let levels: Vec<Vec<usize>> = levels.iter().map(|level| level.to_vec()).collect();
            let with_attention: Vec<bool> = (0..8).map(|i| i % 2 == 0).collect();
            best_run(&levels, &[true; 8], &with_attention)
        };
        let equal: &[usize] = &[1, 2, 1, 2, 1, 2, 1, 2];
        let pairs = || Some(Run { start: 0, period: 2, count: 4 });
        // Every other attention is different.
        assert_eq!(best(&[&[1, 2, 3, 2, 1, 2, 3, 2], equal, equal]), pairs());
        // The first layers are different.
        let first: &[usize] = &[1, 7, 1, 2, 1, 2, 1, 2];
        assert_eq!(best(&[first, first, equal]), pairs());
        // A level that tells less covers less.
        assert_eq!(best(&[equal, equal, &[1, 1, 1, 1, 1, 1, 1, 2]]), pairs());
    }

    #[test]
    fn groups_of_a_looser_level_have_an_attention_each() {
        let strict = vec![1, 2, 3, 2, 1, 2, 3, 2];
        let loose = vec![1; 8];
        let found = best_run(&[strict, loose], &[true; 8], &[false; 8]);
        assert_eq!(found, Some(Run { start: 0, period: 4, count: 2 }));
    }

    #[test]
    fn pieces_without_linear_layers_are_no_blocks() {
        assert_eq!(longest_run(&[5, 5, 5, 1], &[false, false, false, true]), None);
        assert_eq!(run(&[1, 2, 3]), None);
        assert_eq!(run(&[]), None);
    }
}
