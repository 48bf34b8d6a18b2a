//! Rotary position embeddings.

mod tables;

use planish_ir::{Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::infer::Facts;

use super::constants::int64s;
use crate::pass::{PassContext, PassError};
use crate::pattern::{Match, Pattern, any, op};
use crate::rule::{Rewriter, Rule, apply};

/// Lifts decomposed rotary embeddings to `RotaryEmbedding` with half tables, merges the part of a
/// head that is not rotated into it, and gives each sequence a table of its own.
pub(super) fn lift_rotary_embeddings(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let rules = [
        Rule { name: "lift_split_half_rope", pattern: split_half_pattern, replace: split_half },
        Rule { name: "lift_interleaved_rope", pattern: interleaved_pattern, replace: interleaved },
    ];
    let n_lifted = apply(model, context, &rules)?;
    let n_merged = merge_partial(model, context)?;
    let facts = context.infer(model)?;
    Ok(n_lifted + n_merged + tables::repeat_tables(&mut model.graph, &facts))
}

/// x · cos + concat(−x₂, x₁) · sin, where x₁ and x₂ are the halves of x (checked in `split_half`)
fn split_half_pattern() -> Pattern {
    rotated(op("Concat", [op("Neg", [any("second")]), any("first")]))
}

/// x · cos + (−x₁, x₀, −x₃, x₂, …) · sin
fn interleaved_pattern() -> Pattern {
    let negated = op("Unsqueeze", [op("Neg", [any("second")])]);
    let pairs = op("Concat", [negated, op("Unsqueeze", [any("first")])]).named("pairs");
    rotated(op("Reshape", [pairs]))
}

fn rotated(turned: Pattern) -> Pattern {
    any("x") * any("cos") + turned.named("turned") * any("sin")
}

fn split_half(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let (x, cos) = factors(rewriter.graph, found);
    check_part(rewriter, found.value("first"), x, Order::Halves, 0)?;
    check_part(rewriter, found.value("second"), x, Order::Halves, 1)?;
    rotary(rewriter, x, cos, found.value("sin"), Order::Halves)
}

fn interleaved(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let (x, cos) = factors(rewriter.graph, found);
    check_part(rewriter, found.value("first"), x, Order::Pairs, 0)?;
    check_part(rewriter, found.value("second"), x, Order::Pairs, 1)?;
    let width = rewriter.facts.get(x).dim(-1).and_then(|d| d.as_const()).unwrap_or(0);
    let sizes = [-1, -2]
        .map(|axis| rewriter.facts.get(found.value("pairs")).dim(axis).and_then(|d| d.as_const()));
    let turned = rewriter.facts.get(found.value("turned")).shape;
    if sizes != [Some(2), Some(width / 2)] || turned != rewriter.facts.get(x).shape {
        return Err(format!("its pairs have sizes {sizes:?} for heads of {width}"));
    }
    rotary(rewriter, x, cos, found.value("sin"), Order::Pairs)
}

/// x and cos. A product matches in either order: x is the factor that the parts are parts of.
fn factors(graph: &Graph, found: &Match) -> (ValueId, ValueId) {
    let (x, cos) = (found.value("x"), found.value("cos"));
    let source = graph.producer_node(found.value("first")).and_then(|node| node.input(0));
    if source == Some(cos) { (cos, x) } else { (x, cos) }
}

/// The rotary embedding of x, on four axes with the heads on axis 1, or between two transposes
/// where they are on axis 2.
fn rotary(
    rewriter: &mut Rewriter,
    x: ValueId,
    cos: ValueId,
    sin: ValueId,
    order: Order,
) -> Result<ValueId, String> {
    let head_axis = tables::head_axis(rewriter, cos, x)?;
    let cos = tables::half_table(rewriter, cos, x, order)?;
    let sin = tables::half_table(rewriter, sin, x, order)?;
    let heads = rewriter.facts.get(x).dim(head_axis as i64).and_then(|d| d.as_const());
    let heads = heads.ok_or("the number of heads is not known")?;
    let node = |x| {
        Node::new("RotaryEmbedding", vec![Some(x), Some(cos), Some(sin)])
            .with("interleaved", i64::from(order == Order::Pairs))
            .with("num_heads", heads)
    };
    if head_axis == 1 {
        return Ok(rewriter.add_root(node(x)));
    }
    let turn = |x| Node::new("Transpose", vec![Some(x)]).with("perm", vec![0, 2, 1, 3]);
    let hint = format!("{}/heads", rewriter.name(x));
    let turned = rewriter.graph.add_op(&hint, turn(x));
    let rotated = rewriter.graph.add_op(&hint, node(turned));
    Ok(rewriter.add_root(turn(rotated)))
}

/// Which channels of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Channel i and i + d / 2.
    Halves,
    /// Channel 2·i and 2·i + 1.
    Pairs,
}

/// `part` is the first (`which` 0) or second half of the last axis of `x`: of its halves, or of
/// each of its pairs.
fn check_part(
    rewriter: &Rewriter,
    part: ValueId,
    x: ValueId,
    order: Order,
    which: i64,
) -> Result<(), String> {
    let (graph, facts) = (&*rewriter.graph, &*rewriter.facts);
    let width = facts.get(x).dim(-1).and_then(|d| d.as_const()).ok_or("unknown head size")?;
    let name = || graph.value(part).name.clone();
    let (id, output) = graph.producer(part).ok_or_else(|| format!("\"{}\" is no slice", name()))?;
    let node = graph.node(id);
    if node.input(0) != Some(x) {
        return Err(format!("\"{}\" is no part of \"{}\"", name(), graph.value(x).name));
    }
    let half_width = facts.get(part).dim(-1).and_then(|d| d.as_const());
    if half_width != Some(width / 2) {
        return Err(format!("\"{}\" has width {half_width:?}, not {}", name(), width / 2));
    }
    let starts_right = match node.op_type.as_str() {
        "Split" => order == Order::Halves && output as i64 == which,
        "Slice" => {
            let ints = |index| node.input(index).and_then(|v| facts.get(v).ints());
            let steps = ints(4).or(node.input(4).is_none().then(|| vec![1]));
            let (starts, step) = match order {
                Order::Halves => ([which * width / 2, which * (width / 2) - width * which], 1),
                Order::Pairs => ([which, which - width], 2),
            };
            steps.is_some_and(|steps| steps == [step])
                && ints(1).is_some_and(|s| s.len() == 1 && starts.contains(&s[0]))
        }
        _ => false,
    };
    if starts_right { Ok(()) } else { Err(format!("\"{}\" starts elsewhere", name())) }
}

/// `Concat(RotaryEmbedding(x[.., :r]), x[.., r:])` → `RotaryEmbedding(x)` of the first r channels.
fn merge_partial(model: &mut Model, context: &mut PassContext) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let Some(Partial { x, rotary, width, is_turned }) = partial(graph, &facts, id) else {
            continue;
        };
        let output = graph.node(id).output(0).expect("matched");
        let hint = graph.value(output).name.clone();
        let mut node = graph.node(rotary).clone().with("rotary_embedding_dim", width);
        node.inputs[0] = Some(if is_turned { turn_heads(graph, &hint, x) } else { x });
        let merged = graph.add_op(&hint, node.with_outputs(Vec::new()));
        let merged = if is_turned { turn_heads(graph, &hint, merged) } else { merged };
        graph.replace_value(output, merged);
        n_rewrites += 1;
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

fn turn_heads(graph: &mut Graph, hint: &str, x: ValueId) -> ValueId {
    let node = Node::new("Transpose", vec![Some(x)]).with("perm", vec![0, 2, 1, 3]);
    graph.add_op(&format!("{hint}/heads"), node)
}

/// A rotary embedding of the first channels of each head alone.
struct Partial {
    /// The whole heads.
    x: ValueId,
    rotary: NodeId,
    /// How many channels it turns.
    width: i64,
    /// Whether it stands between two transposes.
    is_turned: bool,
}

/// The parts of the Concat `id`, if it joins rotated channels with the rest of the same heads.
fn partial(graph: &Graph, facts: &Facts, id: NodeId) -> Option<Partial> {
    let node = graph.node(id);
    let (mut rotated, rest) = (node.input(0)?, node.input(1)?);
    if !node.is("Concat") || node.inputs.len() != 2 {
        return None;
    }
    let below_turn = |value| {
        let node = graph.producer_node(value).filter(|node| node.is("Transpose"))?;
        node.input(0).filter(|_| node.ints("perm") == Some(&[0, 2, 1, 3]))
    };
    let turned = below_turn(rotated);
    rotated = turned.unwrap_or(rotated);
    let (rotary, _) = graph.producer(rotated)?;
    if !graph.node(rotary).is("RotaryEmbedding") {
        return None;
    }
    let mut first = graph.node(rotary).input(0)?;
    if turned.is_some() {
        first = below_turn(first)?;
    }
    let (x, start) = slice_start(graph, facts, first)?;
    let (same, middle) = slice_start(graph, facts, rest)?;
    let width = facts.get(first).dim(-1)?.as_const()?;
    let whole = facts.shape(x)? == facts.shape(node.output(0)?)?;
    let fits = start == 0 && same == x && middle == width && whole;
    fits.then_some(Partial { x, rotary, width, is_turned: turned.is_some() })
}

/// The value that `part` is a part of along the last axis, and where it starts.
fn slice_start(graph: &Graph, facts: &Facts, part: ValueId) -> Option<(ValueId, i64)> {
    let (id, output) = graph.producer(part)?;
    let node = graph.node(id);
    let x = node.input(0)?;
    match node.op_type.as_str() {
        "Slice" => match facts.get(node.input(1)?).ints()?[..] {
            [start] => Some((x, start)),
            _ => None,
        },
        "Split" => {
            let before = node.outputs[..output].iter();
            let widths: Option<Vec<i64>> =
                before.map(|v| facts.get((*v)?).dim(-1)?.as_const()).collect();
            Some((x, widths?.iter().sum()))
        }
        _ => None,
    }
}

/// `[batch, sequence]` positions of the tokens after `n_past` others, for exporters that leave
/// them to the attention operator.
pub(super) fn positions_after(graph: &mut Graph, ids: ValueId, past: ValueId) -> ValueId {
    let shape = |graph: &mut Graph, value, axis: i64| {
        let node = Node::new("Shape", vec![Some(value)]).with("start", axis).with("end", axis + 1);
        graph.add_op("size", node)
    };
    let scalar =
        |graph: &mut Graph, value| graph.add_op("length", Node::new("Squeeze", vec![Some(value)]));
    let n_past = shape(graph, past, 2);
    let n_new = shape(graph, ids, 1);
    let total = graph.add_op("total", Node::new("Add", vec![Some(n_past), Some(n_new)]));
    let (start, end) = (scalar(graph, n_past), scalar(graph, total));
    let one = graph.add_constant("one", Tensor::scalar(1i64));
    let range =
        graph.add_op("positions", Node::new("Range", vec![Some(start), Some(end), Some(one)]));
    let axes = graph.add_constant("axes", int64s(&[0]));
    let row = graph.add_op("positions", Node::new("Unsqueeze", vec![Some(range), Some(axes)]));
    let target = graph.add_op("shape", Node::new("Shape", vec![Some(ids)]));
    graph.add_op("position_ids", Node::new("Expand", vec![Some(row), Some(target)]))
}
