//! Blocks: the pieces of the residual stream that repeat.

use std::collections::HashMap;
use std::ops::Range;

use planish_ir::{Graph, NodeId};

use super::stream::Stream;

/// The ranges of segments that make a block each, in order. Segments are alike if they have the
/// same operators on constants of the same shapes; blocks are the run of equal groups of segments
/// that covers most of the stream. Where nothing repeats, one block takes all segments from the
/// first to the last that `has_linear`.
pub(super) fn find_blocks(
    graph: &Graph,
    stream: &Stream,
    has_linear: impl Fn(&[NodeId]) -> bool,
) -> Vec<Range<usize>> {
    let prints = fingerprints(graph, &stream.segments);
    let with_linear: Vec<bool> = stream.segments.iter().map(|s| has_linear(s)).collect();
    if let Some(run) = longest_run(&prints, &with_linear) {
        let block = |i: usize| run.start + i * run.period..run.start + (i + 1) * run.period;
        return (0..run.count).map(block).collect();
    }
    let first = with_linear.iter().position(|has| *has);
    let last = with_linear.iter().rposition(|has| *has);
    first.zip(last).map(|(first, last)| first..last + 1).into_iter().collect()
}

/// A number for each segment, equal for segments that are alike.
fn fingerprints(graph: &Graph, segments: &[Vec<NodeId>]) -> Vec<usize> {
    let mut numbers: HashMap<Vec<String>, usize> = HashMap::new();
    let number = |segment: &Vec<NodeId>| {
        let mut parts: Vec<String> = segment.iter().map(|id| describe(graph, *id)).collect();
        // Equal pieces need not stand in equal order in the file.
        parts.sort_unstable();
        let next = numbers.len();
        *numbers.entry(parts).or_insert(next)
    };
    segments.iter().map(number).collect()
}

/// Operator and shapes of the constants that the node reads.
fn describe(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    let constants = node.inputs.iter().flatten().filter_map(|input| graph.constant(*input));
    let shapes: Vec<&[usize]> = constants.map(|tensor| tensor.shape()).collect();
    format!("{}.{} {shapes:?}", node.domain, node.op_type)
}

#[derive(Debug, PartialEq)]
struct Run {
    start: usize,
    period: usize,
    count: usize,
}

/// The run of equal groups that covers most segments, has a group with a linear layer, and among
/// those the shortest group and the earliest start.
fn longest_run(prints: &[usize], with_linear: &[bool]) -> Option<Run> {
    let n = prints.len();
    let mut best: Option<Run> = None;
    for period in 1..=n / 2 {
        for start in 0..=n - 2 * period {
            let group = |i: usize| prints.get(start + i * period..start + (i + 1) * period);
            let count = 1 + (1..).take_while(|i| group(*i) == group(0)).count();
            let useful = count > 1 && with_linear[start..start + period].contains(&true);
            if useful && best.as_ref().is_none_or(|b| count * period > b.count * b.period) {
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
    fn pieces_without_linear_layers_are_no_blocks() {
        assert_eq!(longest_run(&[5, 5, 5, 1], &[false, false, false, true]), None);
        assert_eq!(run(&[1, 2, 3]), None);
        assert_eq!(run(&[]), None);
    }
}
