//! Tensors that are cut into a sequence, of which single ones are taken.

use planish_ir::{Graph, Model, Node, NodeId, ValueId};
use planish_kernels::infer::Facts;

use super::constants::int64s;
use crate::pass::{PassContext, PassError};

/// More parts than any model cuts a tensor into.
const MAX_PARTS: i64 = 1 << 10;

/// `SequenceAt(SplitToSequence(x), i)` → output i of `Split(x)`, where the parts are known.
pub(super) fn split_sequences(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let is_cut = |id: &NodeId| model.graph.node(*id).is("SplitToSequence");
    let nodes: Vec<NodeId> = model.graph.node_ids().filter(is_cut).collect();
    if nodes.is_empty() {
        return Ok(0);
    }
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in nodes {
        match split(graph, &facts, id) {
            Ok(()) => n_rewrites += 1,
            Err(reason) => context.note(format!("{}: {reason}", graph.node(id).describe())),
        }
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

fn split(graph: &mut Graph, facts: &Facts, id: NodeId) -> Result<(), String> {
    let node = graph.node(id).clone();
    let (Some(x), Some(sequence)) = (node.input(0), node.output(0)) else {
        return Err("an input or output is absent".into());
    };
    let sizes = part_sizes(facts, &node, x).ok_or("the sizes of its parts are not known")?;
    let users = users(graph, facts, sequence, sizes.len())?;
    let n_parts = sizes.len();
    let sizes = graph.add_constant("split", int64s(&sizes));
    let cut = Node::new("Split", vec![Some(x), Some(sizes)])
        .with("axis", node.int("axis", 0))
        .with_name(node.name);
    let hint = format!("{}/part", graph.value(sequence).name);
    let parts = graph.add_op_n(&hint, cut, n_parts);
    for (output, index) in users {
        graph.replace_value(output, parts[index]);
    }
    Ok(())
}

/// What the node cuts its input into: parts of one size, the last maybe smaller, or of given sizes.
fn part_sizes(facts: &Facts, node: &Node, x: ValueId) -> Option<Vec<i64>> {
    let width = facts.get(x).dim(node.int("axis", 0))?.as_const()?;
    let split = facts.get(node.input(1)?);
    let sizes = split.ints()?;
    let sizes = match (split.rank()?, &sizes[..]) {
        (0, [size]) if *size > 0 && width / size < MAX_PARTS => (0..width)
            .step_by(usize::try_from(*size).ok()?)
            .map(|at| (width - at).min(*size))
            .collect(),
        (1, _) => sizes,
        _ => return None,
    };
    let total =
        sizes.iter().try_fold(0i64, |sum, size| sum.checked_add(*size).filter(|_| *size >= 0));
    (total == Some(width)).then_some(sizes)
}

/// What is taken out of the sequence, with its place.
fn users(
    graph: &Graph,
    facts: &Facts,
    sequence: ValueId,
    n_parts: usize,
) -> Result<Vec<(ValueId, usize)>, String> {
    let taken = |(user, _): (NodeId, usize)| {
        let node = graph.node(user);
        let index = node.input(1).filter(|_| node.is("SequenceAt"));
        let index = index.and_then(|index| facts.get(index).ints()).filter(|i| i.len() == 1);
        let index = index.map(|i| if i[0] < 0 { i[0] + n_parts as i64 } else { i[0] });
        let index = index.and_then(|i| usize::try_from(i).ok()).filter(|i| *i < n_parts);
        node.output(0).zip(index).ok_or_else(|| format!("{} reads it as a whole", node.describe()))
    };
    if graph.is_output(sequence) {
        return Err("it is an output of the graph".into());
    }
    graph.users(sequence).into_iter().map(taken).collect()
}

#[cfg(test)]
mod tests {
    use planish_ir::text::{PrintOptions, parse, print};

    use super::*;

    /// The graph after the pass, and the notes.
    fn after(text: &str) -> (String, usize) {
        let mut model = parse(text).unwrap();
        model.set_opset("", 23);
        let n_rewrites = split_sequences(&mut model, &mut PassContext::default()).unwrap();
        (print(&model.graph, &PrintOptions::default()), n_rewrites)
    }

    #[test]
    fn parts_of_a_sequence_are_outputs_of_a_split() {
        let (text, n_rewrites) = after(
            "g (float[B,S,12] x) => (a, b, c, d)
            <int64 five = {5}, int64[2] sizes = {5, 7}, int64 first = {0}, int64 second = {1},
             int64 last = {-1}> {
                equal = SplitToSequence <axis = -1> (x, five)
                a = SequenceAt (equal, first)
                b = SequenceAt (equal, last)
                given = SplitToSequence <axis = 2> (x, sizes)
                c = SequenceAt (given, first)
                d = SequenceAt (given, second)
            }",
        );
        assert_eq!(n_rewrites, 2, "{text}");
        assert!(text.contains("{5, 5, 2}") && text.contains("{5, 7}"), "{text}");
        assert!(text.contains("c, d = Split <axis = 2> (x, "), "{text}");
        assert!(!text.contains("Sequence"), "{text}");
    }

    #[test]
    fn what_is_not_known_stays() {
        let unknown_width = "g (float[B,S] x) => (a) <int64 five = {5}, int64 first = {0}> {
            parts = SplitToSequence <axis = 1> (x, five)
            a = SequenceAt (parts, first)
        }";
        let unknown_place = "g (float[B,8] x, int64 i) => (a) <int64 four = {4}> {
            parts = SplitToSequence <axis = 1> (x, four)
            a = SequenceAt (parts, i)
        }";
        let outside = "g (float[B,8] x) => (a) <int64 four = {4}, int64 two = {2}> {
            parts = SplitToSequence <axis = 1> (x, four)
            a = SequenceAt (parts, two)
        }";
        let too_large = "g (float[B,8] x) => (a)
            <int64[2] sizes = {9223372036854775807, 9223372036854775807}, int64 first = {0}> {
            parts = SplitToSequence <axis = 1> (x, sizes)
            a = SequenceAt (parts, first)
        }";
        for text in [unknown_width, unknown_place, outside, too_large] {
            let (text, n_rewrites) = after(text);
            assert!(n_rewrites == 0 && text.contains("SplitToSequence"), "{text}");
        }
    }
}
