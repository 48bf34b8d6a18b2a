//! Rotary position embeddings.

use planish_ir::{Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::infer::Facts;

use super::constants::int64s;
use crate::pass::{PassContext, PassError};
use crate::pattern::{Match, Pattern, any, op};
use crate::rule::{Rewriter, Rule, apply};

/// Lifts decomposed rotary embeddings to `RotaryEmbedding` with half tables, and merges the part
/// of a head that is not rotated into it.
pub(super) fn lift_rotary_embeddings(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let rules =
        [Rule { name: "lift_split_half_rope", pattern: split_half_pattern, replace: split_half }];
    let n_lifted = apply(model, context, &rules)?;
    Ok(n_lifted + merge_partial(model, context)?)
}

/// x · cos + concat(−x₂, x₁) · sin, where x₁ and x₂ are the halves of x (checked in `split_half`)
fn split_half_pattern() -> Pattern {
    let rotated = op("Concat", [op("Neg", [any("second")]), any("first")]).named("rotated");
    any("x") * any("cos") + rotated * any("sin")
}

fn split_half(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let (first, second) = (found.value("first"), found.value("second"));
    let (mut x, mut cos) = (found.value("x"), found.value("cos"));
    // A product matches in either order: x is the factor that the halves are parts of.
    let source = |graph: &Graph| graph.node(graph.producer(first)?.0).input(0);
    if source(rewriter.graph) == Some(cos) {
        (x, cos) = (cos, x);
    }
    check_half(rewriter, first, x, 0)?;
    check_half(rewriter, second, x, 1)?;
    let cos = half_table(rewriter, cos, x)?;
    let sin = half_table(rewriter, found.value("sin"), x)?;
    let heads = rewriter.facts.get(x).dim(1).and_then(|d| d.as_const());
    let heads = heads.ok_or("the number of heads is not known")?;
    let node = Node::new("RotaryEmbedding", vec![Some(x), Some(cos), Some(sin)])
        .with("interleaved", 0)
        .with("num_heads", heads);
    Ok(rewriter.add_root(node))
}

/// `part` is the first (`which` 0) or second half of the last axis of `x`.
fn check_half(rewriter: &Rewriter, part: ValueId, x: ValueId, which: i64) -> Result<(), String> {
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
        "Split" => output as i64 == which,
        "Slice" => {
            let ints = |index| node.input(index).and_then(|v| facts.get(v).ints());
            let is_dense = node.input(4).is_none() || ints(4).is_some_and(|steps| steps == [1]);
            let starts = [which * width / 2, which * (width / 2) - width * which];
            is_dense && ints(1).is_some_and(|s| s.len() == 1 && starts.contains(&s[0]))
        }
        _ => false,
    };
    if starts_right { Ok(()) } else { Err(format!("\"{}\" starts elsewhere", name())) }
}

/// The half [batch, sequence, d/2] of a table [batch, 1, sequence, d] whose halves are equal, for
/// heads x [batch, heads, sequence, d].
fn half_table(rewriter: &mut Rewriter, table: ValueId, x: ValueId) -> Result<ValueId, String> {
    let shape = rewriter.facts.get(table).shape.unwrap_or_default();
    let heads = rewriter.facts.get(x).shape.unwrap_or_default();
    let fits = heads.len() == 4
        && shape.len() == 4
        && shape[1].as_const() == Some(1)
        && shape[2..] == heads[2..];
    if !fits {
        let name = rewriter.name(table);
        return Err(format!("the table \"{name}\" has shape {shape:?} for heads {heads:?}"));
    }
    // The head axis is put in by an Unsqueeze (or Reshape): the half is taken below it.
    let node = rewriter.graph.producer_node(table).ok_or("the table is no operator's output")?;
    let below = node.input(0).ok_or("an input is absent")?;
    let inner = rewriter.facts.get(below).shape.unwrap_or_default();
    if inner.len() != 3 || inner[0] != shape[0] || inner[1..] != shape[2..] {
        let name = rewriter.name(table);
        return Err(format!("the table \"{name}\" is no [batch, sequence, d] with a head axis"));
    }
    half_of(rewriter, below).ok_or_else(|| {
        format!("the halves of the table \"{}\" are not seen to be equal", rewriter.name(table))
    })
}

/// The first half of `value` along its last axis, if the second half is the same.
fn half_of(rewriter: &mut Rewriter, value: ValueId) -> Option<ValueId> {
    if let Some(tensor) = rewriter.graph.constant(value) {
        let half = equal_half(tensor)?;
        let name = rewriter.name(value);
        return Some(rewriter.constant(&name, half));
    }
    let node = rewriter.graph.producer_node(value)?.clone();
    let first = node.input(0)?;
    if node.is("Concat") && node.inputs.len() == 2 {
        let rank = rewriter.facts.get(value).rank()? as i64;
        let last = matches!(node.int("axis", 0), axis if axis == -1 || axis == rank - 1);
        return (last && node.input(1) == Some(first)).then_some(first);
    }
    let hint = format!("{}/half", rewriter.name(value));
    let is_unary = ["Cos", "Sin", "Cast"].iter().any(|op| node.is(op));
    let is_scaled = (node.is("Mul") || node.is("Div"))
        && node
            .input(1)
            .and_then(|v| rewriter.graph.constant(v))
            .is_some_and(|t| t.n_elements() == 1);
    if !is_unary && !is_scaled {
        return None;
    }
    let half = half_of(rewriter, first)?;
    let mut halved = Node::new(node.op_type.clone(), node.inputs.clone());
    halved.inputs[0] = Some(half);
    halved.attributes = node.attributes;
    let like = rewriter.facts.get(half);
    let result = rewriter.graph.add_op(&hint, halved);
    let dtype = rewriter.facts.get(value).dtype;
    rewriter.facts.set(result, planish_kernels::Fact::new(dtype, like.shape));
    Some(result)
}

fn equal_half(tensor: &Tensor) -> Option<Tensor> {
    let width = *tensor.shape().last()?;
    let values = tensor.to_f32_vec().ok()?;
    if width == 0 || width % 2 != 0 {
        return None;
    }
    let mut half = Vec::with_capacity(values.len() / 2);
    for row in values.chunks(width) {
        if row[..width / 2] != row[width / 2..] {
            return None;
        }
        half.extend_from_slice(&row[..width / 2]);
    }
    let mut shape = tensor.shape().to_vec();
    *shape.last_mut()? = width / 2;
    Some(Tensor::from_vec(&shape, half))
}

/// `Concat(RotaryEmbedding(x[.., :r]), x[.., r:])` → `RotaryEmbedding(x)` of the first r channels.
fn merge_partial(model: &mut Model, context: &mut PassContext) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let Some((x, rotary)) = partial(graph, &facts, id) else { continue };
        let output = graph.node(id).output(0).expect("matched");
        let mut node = graph.node(rotary).clone();
        let width = facts.get(node.input(0).expect("matched")).dim(-1).and_then(|d| d.as_const());
        let Some(width) = width else { continue };
        node.inputs[0] = Some(x);
        node = node.with("rotary_embedding_dim", width);
        let hint = graph.value(output).name.clone();
        let merged = graph.add_op(&hint, node.with_outputs(Vec::new()));
        graph.replace_value(output, merged);
        n_rewrites += 1;
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// The whole head x and the rotary node, if the Concat `id` joins its first, rotated channels
/// with the rest.
fn partial(graph: &Graph, facts: &Facts, id: NodeId) -> Option<(ValueId, NodeId)> {
    let node = graph.node(id);
    let (rotated, rest) = (node.input(0)?, node.input(1)?);
    if !node.is("Concat") || node.inputs.len() != 2 {
        return None;
    }
    let (rotary, _) = graph.producer(rotated)?;
    if !graph.node(rotary).is("RotaryEmbedding") {
        return None;
    }
    let first = graph.node(rotary).input(0)?;
    let (x, start) = slice_start(graph, facts, first)?;
    let (same, middle) = slice_start(graph, facts, rest)?;
    let width = facts.get(first).dim(-1)?.as_const()?;
    let whole = facts.shape(x)? == facts.shape(node.output(0)?)?;
    (start == 0 && same == x && middle == width && whole).then_some((x, rotary))
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
