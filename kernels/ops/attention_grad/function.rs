//! The body of `AttentionGrad` in standard operators, for nodes without a mask and with 3-D
//! inputs; it needs the attribute `scale`, which the gradient rule gives.

use planish_ir::{DataType, Function, Node, ValueId};

use crate::ops::support::body::Body;

/// The attributes and sizes that the body reads.
struct Sizes {
    kv_heads: ValueId,
    group: ValueId,
    one: ValueId,
    same: ValueId,
    rest: ValueId,
}

pub(super) fn function() -> Function {
    let (mut body, x) = Body::new("AttentionGrad", &["dY", "Q", "K", "V"]);
    let outputs = gradients(&mut body, [x[0], x[1], x[2], x[3]]);
    body.finish(&[(outputs[0], "dQ"), (outputs[1], "dK"), (outputs[2], "dV")])
}

/// The formulas of `plain`, for whole matrices.
fn gradients(body: &mut Body, [dy, q, k, v]: [ValueId; 4]) -> [ValueId; 3] {
    let (sizes, scale) = (sizes(body), body.required_float_attribute("scale"));
    let hidden = hidden(body, q, k);
    let [dy_heads, q_heads] = [dy, q].map(|x| by_head(body, x, &sizes, sizes.group));
    let [k_heads, v_heads] = [k, v].map(|x| by_head(body, x, &sizes, sizes.one));
    let product = times_transposed(body, q_heads, k_heads);
    let scaled = body.op("scores", "Mul", &[product, scale]);
    let (scores, slope) = capped(body, scaled);
    let p = softmax(body, scores, hidden);
    let dp = times_transposed(body, dy_heads, v_heads);
    let ds = score_gradients(body, p, dp, slope, scale);
    let dq = body.op("dq_heads", "MatMul", &[ds, k_heads]);
    let dq = back(body, dq, &[0, 3, 1, 2, 4], q);
    let [dk, dv] = [(ds, q_heads, k), (p, dy_heads, v)].map(|(weights, rows, like)| {
        let by_query_head = transposed_times(body, weights, rows);
        let axes = body.ints("group_axis", &[2]);
        let sum = Node::new("ReduceSum", vec![Some(by_query_head), Some(axes)]);
        let sum = body.node("by_kv_head", sum.with("keepdims", 0i64));
        back(body, sum, &[0, 2, 1, 3], like)
    });
    [dq, dk, dv]
}

fn sizes(body: &mut Body) -> Sizes {
    let one = body.ints("one", &[1]);
    let [q_heads, kv_heads] = ["q_num_heads", "kv_num_heads"].map(|name| {
        let n = body.int_attribute(name);
        body.op(&format!("{name}_list"), "Reshape", &[n, one])
    });
    let group = body.op("group", "Div", &[q_heads, kv_heads]);
    let (same, rest) = (body.ints("same", &[0, 0]), body.ints("rest", &[-1]));
    Sizes { kv_heads, group, one, same, rest }
}

/// `[b, s, kv_heads · group · d]` as `[b, kv_heads, group, s, d]`.
fn by_head(body: &mut Body, x: ValueId, sizes: &Sizes, group: ValueId) -> ValueId {
    let parts = [sizes.same, sizes.kv_heads, group, sizes.rest];
    let split = body.reshape("split", x, &parts);
    transpose(body, split, &[0, 2, 3, 1, 4])
}

fn transpose(body: &mut Body, x: ValueId, perm: &[i64]) -> ValueId {
    let node = Node::new("Transpose", vec![Some(x)]).with("perm", perm.to_vec());
    body.node("transposed", node)
}

/// a · bᵀ of the last two axes.
fn times_transposed(body: &mut Body, a: ValueId, b: ValueId) -> ValueId {
    let b = transpose(body, b, &[0, 1, 2, 4, 3]);
    body.op("product", "MatMul", &[a, b])
}

/// aᵀ · b of the last two axes.
fn transposed_times(body: &mut Body, a: ValueId, b: ValueId) -> ValueId {
    let a = transpose(body, a, &[0, 1, 2, 4, 3]);
    body.op("product", "MatMul", &[a, b])
}

/// Transposed and in the shape of `like`.
fn back(body: &mut Body, x: ValueId, perm: &[i64], like: ValueId) -> ValueId {
    let rows = transpose(body, x, perm);
    let shape = body.shape("shape", like, 0, None);
    body.reshape("gradient", rows, &[shape])
}

/// Where a key is hidden from a query by causality or a window, `[s, t]`.
fn hidden(body: &mut Body, q: ValueId, k: ValueId) -> ValueId {
    let [rows, columns] = [q, k].map(|x| {
        let n = body.shape("n", x, 1, Some(2));
        let n = body.op("n_scalar", "Squeeze", &[n]);
        let (zero, one) = (int(body, 0), int(body, 1));
        body.op("positions", "Range", &[zero, n, one])
    });
    let axes = body.ints("last_axis", &[1]);
    let rows = body.op("query_positions", "Unsqueeze", &[rows, axes]);
    let distance = body.op("distance", "Sub", &[rows, columns]);
    let ahead = body.op("ahead", "Neg", &[distance]);
    let zero = int(body, 0);
    let causal = body.int_attribute_or("is_causal", 0);
    let causal = body.cast("causal", causal, DataType::Bool);
    let future = body.op("future", "Greater", &[ahead, zero]);
    let mut hidden = body.op("not_yet", "And", &[causal, future]);
    for (name, distance) in [("left_window_size", distance), ("right_window_size", ahead)] {
        let size = body.int_attribute_or(name, -1);
        let limited = body.op("limited", "GreaterOrEqual", &[size, zero]);
        let far = body.op("far", "Greater", &[distance, size]);
        let outside = body.op("outside", "And", &[limited, far]);
        hidden = body.op("hidden", "Or", &[hidden, outside]);
    }
    hidden
}

/// A constant integer.
fn int(body: &mut Body, value: i64) -> ValueId {
    body.node("int", Node::new("Constant", Vec::new()).with("value_int", value))
}

/// The scores after the soft cap, and its derivative.
fn capped(body: &mut Body, scores: ValueId) -> (ValueId, ValueId) {
    let (zero, one) = (body.float("zero", 0.0), body.float("one_f", 1.0));
    let cap = body.float_attribute("softcap", 0.0);
    let is_capped = body.op("is_capped", "Greater", &[cap, zero]);
    let divisor = body.op("divisor", "Where", &[is_capped, cap, one]);
    let ratio = body.op("ratio", "Div", &[scores, divisor]);
    let tanh = body.op("tanh", "Tanh", &[ratio]);
    let limited = body.op("limited", "Mul", &[tanh, divisor]);
    let square = body.op("square", "Mul", &[tanh, tanh]);
    let slope = body.op("tanh_slope", "Sub", &[one, square]);
    let capped = body.op("capped", "Where", &[is_capped, limited, scores]);
    (capped, body.op("slope", "Where", &[is_capped, slope, one]))
}

/// Probabilities; zeros where everything is hidden.
fn softmax(body: &mut Body, scores: ValueId, hidden: ValueId) -> ValueId {
    let infinity = body.float("infinity", f32::NEG_INFINITY);
    let seen = body.op("seen", "Where", &[hidden, infinity, scores]);
    let p = body.node("weights", Node::new("Softmax", vec![Some(seen)]).with("axis", -1i64));
    let zero = body.float("zero", 0.0);
    body.op("probabilities", "Where", &[hidden, zero, p])
}

/// scale · slope · P ∘ (dP − rowsum(P ∘ dP)).
fn score_gradients(
    body: &mut Body,
    p: ValueId,
    dp: ValueId,
    slope: ValueId,
    scale: ValueId,
) -> ValueId {
    let weighted = body.op("weighted", "Mul", &[p, dp]);
    let axes = body.ints("row_axis", &[-1]);
    let mean = body.op("mean", "ReduceSum", &[weighted, axes]);
    let centred = body.op("centred", "Sub", &[dp, mean]);
    let ds = body.op("softmax_gradient", "Mul", &[p, centred]);
    let ds = body.op("product_gradient", "Mul", &[ds, slope]);
    body.op("scaled_gradient", "Mul", &[ds, scale])
}
