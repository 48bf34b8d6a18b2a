//! ONNX Runtime's `GroupQueryAttention`.

use std::collections::BTreeMap;

use planish_ir::{DataType, Graph, Model, Node, NodeId, Tensor, ValueId, ValueType};
use planish_kernels::MICROSOFT;
use planish_kernels::infer::Facts;

use super::super::constants::int64s;
use super::super::rotary::positions_after;
use super::{MAX_HEADS, attention_node};
use crate::pass::{PassContext, PassError};

/// Rewrites every `GroupQueryAttention` with a cache to `RotaryEmbedding` and `Attention`.
pub(super) fn lift(model: &mut Model, context: &mut PassContext) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut shared = Shared::default();
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        if !graph.node(id).is_of(MICROSOFT, "GroupQueryAttention") {
            continue;
        }
        match lift_one(graph, &facts, id, &mut shared) {
            Ok(()) => n_rewrites += 1,
            Err(reason) => context.note(format!("{}: {reason}", graph.node(id).describe())),
        }
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// What all layers have in common.
#[derive(Default)]
struct Shared {
    positions: Option<ValueId>,
    mask: Option<ValueId>,
    /// Masks of sliding windows, by their width.
    windows: BTreeMap<i64, ValueId>,
}

fn lift_one(
    graph: &mut Graph,
    facts: &Facts,
    id: NodeId,
    shared: &mut Shared,
) -> Result<(), String> {
    let node = graph.node(id).clone();
    check(&node)?;
    let (q_heads, kv_heads) = (node.int("num_heads", 0), node.int("kv_num_heads", 0));
    let past = (node.input(3), node.input(4));
    let (Some(past_key), Some(past_value)) = past else { return Err("it has no cache".into()) };
    let head_size = facts.get(past_key).dim(3).and_then(|d| d.as_const());
    let width = node.input(0).and_then(|v| facts.get(v).dim(-1)?.as_const());
    let n_packed = if node.input(1).is_some() {
        q_heads
    } else {
        q_heads.saturating_add(kv_heads.saturating_mul(2))
    };
    let head_size = head_size.or(width.map(|w| w / n_packed)).ok_or("unknown head size")?;
    let [mut q, mut k, v] = projections(graph, &node, q_heads, kv_heads, head_size)?;
    let (ids, attention_mask) = token_inputs(graph, facts)?;
    if node.int("do_rotary", 0) == 1 {
        let positions = match node.input(9) {
            Some(given) => given,
            None => *shared.positions.get_or_insert_with(|| positions_after(graph, ids, past_key)),
        };
        let (cos, sin) = (node.input(7), node.input(8));
        let (Some(cos), Some(sin)) = (cos, sin) else {
            return Err("it has no rotary tables".into());
        };
        let half = facts.get(cos).dim(-1).and_then(|d| d.as_const());
        let half = half.ok_or("the width of its rotary tables is unknown")?;
        let width = half.saturating_mul(2);
        let cos = gather_rows(graph, "cos", cos, positions);
        let sin = gather_rows(graph, "sin", sin, positions);
        let node = Node::new("RotaryEmbedding", vec![None, Some(cos), Some(sin)])
            .with("interleaved", node.int("rotary_interleaved", 0))
            .with("rotary_embedding_dim", if width == head_size { 0 } else { width });
        q = rotary(graph, q, node.clone().with("num_heads", q_heads));
        k = rotary(graph, k, node.with("num_heads", kv_heads));
    }
    let mut mask = *shared.mask.get_or_insert_with(|| padding_mask(graph, ids, attention_mask));
    let window = node.int("local_window_size", -1);
    if window > 0 {
        let make = || window_mask(graph, mask, ids, attention_mask, window);
        mask = *shared.windows.entry(window).or_insert_with(make);
    }
    let scale = match node.float("scale", 0.0) {
        0.0 => 1.0 / (head_size as f32).sqrt(),
        scale => scale,
    };
    let inputs = [Some(q), Some(k), Some(v), Some(mask), Some(past_key), Some(past_value)];
    let softcap = node.float("softcap", 0.0);
    let lifted = attention_node(inputs, q_heads, kv_heads, scale, softcap, window <= 0)
        .with_name(node.name.clone())
        .with_outputs(node.outputs.iter().take(3).copied().collect());
    graph.replace_node(id, lifted).map_err(|error| error.to_string())?;
    Ok(())
}

/// Forms that the canonical operator has no word for.
fn check(node: &Node) -> Result<(), String> {
    if node.int("sliding_window_cache", 0) != 0 {
        return Err("its cache holds no more than its sliding window".into());
    }
    if node.int("smooth_softmax", 0) != 0 || node.input(10).is_some() || node.input(11).is_some() {
        return Err("it has a bias, a sink or a smooth softmax".into());
    }
    let rest = node.inputs.iter().skip(12).flatten().next().is_some();
    if rest || node.int("k_quant_type", 0) != 0 || node.input(0).is_none() {
        return Err("it has inputs that are not known".into());
    }
    if node.outputs.iter().skip(3).any(Option::is_some) {
        return Err("it returns its scores".into());
    }
    let heads = ["num_heads", "kv_num_heads"].map(|name| node.int(name, 0));
    if heads.iter().any(|n| !(1..=MAX_HEADS).contains(n)) {
        return Err(format!("it has {} query heads over {}", heads[0], heads[1]));
    }
    Ok(())
}

/// q, k and v, split where they come as one value.
fn projections(
    graph: &mut Graph,
    node: &Node,
    q_heads: i64,
    kv_heads: i64,
    size: i64,
) -> Result<[ValueId; 3], String> {
    let packed = node.input(0).ok_or("its query is absent")?;
    if let (Some(k), Some(v)) = (node.input(1), node.input(2)) {
        return Ok([packed, k, v]);
    }
    let sizes = [q_heads * size, kv_heads * size, kv_heads * size];
    let sizes = graph.add_constant("split", int64s(&sizes));
    let split = Node::new("Split", vec![Some(packed), Some(sizes)]).with("axis", -1);
    let hint = format!("{}/part", graph.value(packed).name);
    let parts = graph.add_op_n(&hint, split, 3);
    Ok([parts[0], parts[1], parts[2]])
}

/// The graph inputs with the token ids `[batch, sequence]` and the attention mask
/// `[batch, total]`: the two integer inputs of rank 2; the ids lead to a Gather.
fn token_inputs(graph: &Graph, facts: &Facts) -> Result<(ValueId, ValueId), String> {
    let is_tokens = |v: &ValueId| {
        facts.get(*v).rank() == Some(2) && facts.get(*v).dtype.is_some_and(|d| d.is_integer())
    };
    let gathers = |v: &ValueId| {
        graph.users(*v).iter().any(|(user, index)| *index == 1 && graph.node(*user).is("Gather"))
    };
    let candidates: Vec<ValueId> = graph.inputs.iter().copied().filter(is_tokens).collect();
    let ids = candidates.iter().copied().find(gathers).ok_or("no token ids among the inputs")?;
    let sequence = facts.get(ids).dim(1).cloned();
    let mask = candidates
        .into_iter()
        .find(|v| *v != ids && facts.get(*v).dim(1).cloned() != sequence)
        .ok_or("no attention mask among the inputs")?;
    Ok((ids, mask))
}

fn gather_rows(graph: &mut Graph, hint: &str, table: ValueId, positions: ValueId) -> ValueId {
    let node = Node::new("Gather", vec![Some(table), Some(positions)]).with("axis", 0);
    graph.add_op(hint, node)
}

/// Adds the rotary embedding `node` for `x`.
fn rotary(graph: &mut Graph, x: ValueId, mut node: Node) -> ValueId {
    node.inputs[0] = Some(x);
    let hint = format!("{}/rotated", graph.value(x).name);
    graph.add_op(&hint, node)
}

/// `[batch, 1, sequence, total]`: which keys are tokens and not padding.
pub(in super::super) fn padding_mask(
    graph: &mut Graph,
    ids: ValueId,
    attention_mask: ValueId,
) -> ValueId {
    let size = |graph: &mut Graph, value, axis: i64| {
        let node = Node::new("Shape", vec![Some(value)]).with("start", axis).with("end", axis + 1);
        graph.add_op("size", node)
    };
    let batch = size(graph, ids, 0);
    let sequence = size(graph, ids, 1);
    let total = size(graph, attention_mask, 1);
    let one = graph.add_constant("one", int64s(&[1]));
    let parts = vec![Some(batch), Some(one), Some(sequence), Some(total)];
    let shape = graph.add_op("mask_shape", Node::new("Concat", parts).with("axis", 0));
    let to = i64::from(DataType::Bool.to_onnx());
    let keep = graph.add_op("keep", Node::new("Cast", vec![Some(attention_mask)]).with("to", to));
    let axes = graph.add_constant("axes", int64s(&[1, 2]));
    let keep = graph.add_op("keep", Node::new("Unsqueeze", vec![Some(keep), Some(axes)]));
    graph.value_mut(keep).ty = ValueType::Unknown;
    graph.add_op("padding_mask", Node::new("Expand", vec![Some(keep), Some(shape)]))
}

/// `[batch, 1, sequence, total]`: which keys are tokens, none after the query, and among the last
/// `window` up to it, itself included.
fn window_mask(
    graph: &mut Graph,
    padding: ValueId,
    ids: ValueId,
    attention_mask: ValueId,
    window: i64,
) -> ValueId {
    let op = |graph: &mut Graph, name: &str, op_type: &str, inputs: &[ValueId]| {
        graph.add_op(name, Node::new(op_type, inputs.iter().copied().map(Some).collect()))
    };
    let width = |graph: &mut Graph, value| {
        let node = Node::new("Shape", vec![Some(value)]).with("start", 1i64).with("end", 2i64);
        let size = graph.add_op("width", node);
        op(graph, "width", "Squeeze", &[size])
    };
    let (total, new) = (width(graph, attention_mask), width(graph, ids));
    let [zero, one, window] =
        [0, 1, window].map(|n| graph.add_constant("number", Tensor::scalar(n)));
    let past = op(graph, "past", "Sub", &[total, new]);
    let queries = op(graph, "queries", "Range", &[past, total, one]);
    let axes = graph.add_constant("axes", int64s(&[1]));
    let queries = op(graph, "queries", "Unsqueeze", &[queries, axes]);
    let keys = op(graph, "keys", "Range", &[zero, total, one]);
    let not_after = op(graph, "causal", "LessOrEqual", &[keys, queries]);
    let oldest = op(graph, "oldest", "Sub", &[queries, window]);
    let recent = op(graph, "recent", "Greater", &[keys, oldest]);
    let seen = op(graph, "seen", "And", &[not_after, recent]);
    op(graph, "window_mask", "And", &[padding, seen])
}
