//! Straight-through gradients of quantisers as function bodies, over the last axis.

use planish_ir::{Node, ValueId};

use super::body::{self, Body};
use crate::ops::quantize_dequantize_heads::AsymmetricGrid;

/// Factors that clip extremes, of shapes that broadcast to those of the extremes.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Clips {
    pub max: ValueId,
    pub min: ValueId,
}

/// The gradients of values, and for each row of the factors that clip its extremes.
pub(in crate::ops) struct Gradients {
    pub x: ValueId,
    pub clip_max: ValueId,
    pub clip_min: ValueId,
}

/// X, quantised symmetrically and read back.
pub(in crate::ops) fn symmetric(body: &mut Body, x: ValueId, clips: Clips) -> ValueId {
    let qmax = body::largest_code(body, true);
    let range = body::extremes(body, x);
    let clipped = body::clipped(body, range, (clips.min, clips.max));
    let scale = body::symmetric_scale(body, clipped, qmax);
    let (_, codes) = body::symmetric_codes(body, x, scale, qmax);
    body.op("read_back", "Mul", &[codes, scale])
}

/// The gradient of [`symmetric`].
pub(in crate::ops) fn symmetric_grad(
    body: &mut Body,
    dy: ValueId,
    x: ValueId,
    clips: Clips,
) -> Gradients {
    let qmax = body::largest_code(body, true);
    let range = body::extremes(body, x);
    let (low, high) = body::clipped(body, range, (clips.min, clips.max));
    let scale = body::symmetric_scale(body, (low, high), qmax);
    let (quotient, codes) = body::symmetric_codes(body, x, scale, qmax);
    let rounded = body.op("unclipped", "Round", &[quotient]);
    let inside = body.op("inside", "Equal", &[rounded, codes]);
    let zero = body.float("nothing", 0.0);
    let dx = body.op("dx_inside", "Where", &[inside, dy, zero]);
    let taken = body.op("taken", "Where", &[inside, quotient, zero]);
    let slope = body.op("slope", "Sub", &[codes, taken]);
    let of_scale = weighted_sum(body, dy, slope);
    let of_amplitude = body.op("of_amplitude", "Div", &[of_scale, qmax]);
    let (of_high, of_low) = of_symmetric_extremes(body, of_amplitude, (low, high));
    through_extremes(body, dx, x, range, clips, (of_high, of_low))
}

/// The gradients of the clipped largest and smallest value from that of the amplitude, which goes
/// to the one that decides it.
fn of_symmetric_extremes(
    body: &mut Body,
    of_amplitude: ValueId,
    (low, high): (ValueId, ValueId),
) -> (ValueId, ValueId) {
    let zero = body.float("nothing", 0.0);
    let floor = body.float("floor", 1e-8);
    let low_size = body.op("low_size", "Neg", &[low]);
    let amplitude = body.op("amplitude", "Max", &[high, low_size]);
    let free = body.op("free", "Greater", &[amplitude, floor]);
    let of_amplitude = body.op("of_free_amplitude", "Where", &[free, of_amplitude, zero]);
    let by_high = body.op("by_high", "GreaterOrEqual", &[high, low_size]);
    let of_high = body.op("of_high", "Where", &[by_high, of_amplitude, zero]);
    let negative = body.op("negative_of_amplitude", "Neg", &[of_amplitude]);
    (of_high, body.op("of_low", "Where", &[by_high, zero, negative]))
}

/// The gradient of X, quantised asymmetrically and read back.
pub(in crate::ops) fn asymmetric_grad(
    body: &mut Body,
    dy: ValueId,
    x: ValueId,
    clips: Clips,
) -> Gradients {
    let qmax = body::largest_code(body, false);
    let range = body::extremes(body, x);
    let clipped = body::clipped(body, range, (clips.min, clips.max));
    let grid = AsymmetricGrid::new(body, clipped, qmax);
    let codes = grid.codes(body, x);
    let inside = body.op("inside", "Equal", &[codes.shifted, codes.clipped]);
    let zero = body.float("nothing", 0.0);
    let dx = body.op("dx_inside", "Where", &[inside, dy, zero]);
    let minus_shift = body.op("minus_shift", "Neg", &[grid.shift]);
    let taken = body.op("taken", "Where", &[inside, codes.quotient, minus_shift]);
    let slope = body.op("slope", "Sub", &[codes.centred, taken]);
    let of_scale = weighted_sum(body, dy, slope);
    let of_range = body.op("of_range", "Div", &[of_scale, qmax]);
    let floor = body.float("floor", 1e-8);
    let free = body.op("free", "Greater", &[grid.range, floor]);
    let of_high = body.op("of_high", "Where", &[free, of_range, zero]);
    let outside = body.op("outside", "Sub", &[dy, dx]);
    let axes = body.ints("axes", &[-1]);
    let outside = body.op("outside_sum", "ReduceSum", &[outside, axes]);
    let of_low = body.op("of_low", "Sub", &[outside, of_high]);
    through_extremes(body, dx, x, range, clips, (of_high, of_low))
}

/// Σ dy · slope of each row.
fn weighted_sum(body: &mut Body, dy: ValueId, slope: ValueId) -> ValueId {
    let weighted = body.op("weighted", "Mul", &[dy, slope]);
    let axes = body.ints("axes", &[-1]);
    body.op("of_scale", "ReduceSum", &[weighted, axes])
}

/// Passes the gradients of the clipped extremes on to the factors and to the first elements that
/// are the extremes.
fn through_extremes(
    body: &mut Body,
    dx: ValueId,
    x: ValueId,
    (low, high): (ValueId, ValueId),
    clips: Clips,
    (of_high, of_low): (ValueId, ValueId),
) -> Gradients {
    let to_high = body.op("to_high", "Mul", &[of_high, clips.max]);
    let to_low = body.op("to_low", "Mul", &[of_low, clips.min]);
    let high_share = at_first(body, x, "ArgMax", to_high);
    let low_share = at_first(body, x, "ArgMin", to_low);
    let dx = body.op("dx_with_high", "Add", &[dx, high_share]);
    Gradients {
        x: body.op("dx_whole", "Add", &[dx, low_share]),
        clip_max: body.op("of_clip_max", "Mul", &[of_high, high]),
        clip_min: body.op("of_clip_min", "Mul", &[of_low, low]),
    }
}

/// `value` at the first extreme of each row of `x`, 0 elsewhere.
fn at_first(body: &mut Body, x: ValueId, op_type: &str, value: ValueId) -> ValueId {
    let first = body.node("first", Node::new(op_type, vec![Some(x)]).with("axis", -1i64));
    let size = body.shape("last", x, -1, None);
    let size = body.op("last_size", "Squeeze", &[size]);
    let (start, step) = (body.int("start", 0), body.int("step", 1));
    let indices = body.op("indices", "Range", &[start, size, step]);
    let here = body.op("here", "Equal", &[indices, first]);
    let zero = body.float("nothing", 0.0);
    body.op("share", "Where", &[here, value, zero])
}

/// The sum of all elements, in the shape of `like`, which has one.
pub(in crate::ops) fn sum_like(body: &mut Body, x: ValueId, like: ValueId) -> ValueId {
    let node = Node::new("ReduceSum", vec![Some(x)]).with("keepdims", 0i64);
    let sum = body.node("sum", node);
    let shape = body.shape("clip_shape", like, 0, None);
    body.reshape("sum_shaped", sum, &[shape])
}
