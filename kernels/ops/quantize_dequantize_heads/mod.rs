//! planish's `QuantizeDequantizeHeads`: what a quantised key-value cache makes of keys or values.
//! Each head's vector is quantised asymmetrically and read back.
//!
//! qmax = 2^bits − 1; lo = clip_min · min; hi = clip_max · max; scale = max(hi − lo, 1e-8) / qmax;
//! zp = round_half_even(−lo / scale); code = clip(round_half_even(x / scale) + zp, 0, qmax);
//! the result is (code − zp) · scale.

use planish_ir::{Dim, Function, Tensor, ValueId};

use super::support::body::{self, Body};
use super::support::quant::Quantiser;
use super::support::{Dense, facts};
use super::transform_heads::n_heads;
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("QuantizeDequantizeHeads", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_function(function)];

/// The attribute `head_size`, which must be positive.
pub(in crate::ops) fn head_size(op: &OpNode) -> Result<usize, OpError> {
    match usize::try_from(op.node.int("head_size", 0)) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(OpError::unsupported("head_size must be positive")),
    }
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    Quantiser::read(op)?;
    let size = head_size(op)?;
    let width = facts::required(inputs, 0)?.dim(-1).and_then(Dim::as_usize);
    width.map_or(Ok(0), |width| n_heads(width, size))?;
    facts::same_as_first(inputs)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let (quantiser, size) = (Quantiser::read(op)?, head_size(op)?);
    let mut y = Dense::read(x)?;
    n_heads(y.last(), size)?;
    y.data.chunks_exact_mut(size).for_each(|head| quantiser.round_trip(head));
    Ok(vec![y.into_tensor(x.dtype())?])
}

fn function() -> Function {
    let (mut body, inputs) = Body::new("QuantizeDequantizeHeads", &["X"]);
    let x = inputs[0];
    let size = body.int_attribute("head_size");
    let rows = by_head(&mut body, x, size);
    let qmax = body::largest_code(&mut body, false);
    let extremes = body::clipped_extremes(&mut body, rows);
    let grid = AsymmetricGrid::new(&mut body, extremes, qmax);
    let y = grid.round_trip(&mut body, rows);
    let whole = body.shape("whole", x, 0, None);
    let y = body.reshape("shaped", y, &[whole]);
    body.finish(&[(y, "Y")])
}

/// `x` `[.., heads · size]` as `[.., heads, size]`.
pub(in crate::ops) fn by_head(body: &mut Body, x: ValueId, size: ValueId) -> ValueId {
    let outer = body.shape("outer", x, 0, Some(-1));
    let heads = body.ints("heads", &[-1]);
    let first = body.ints("first", &[0]);
    let size = body.op("size", "Unsqueeze", &[size, first]);
    body.reshape("by_head", x, &[outer, heads, size])
}

/// Scale and zero point of rows, in a function body.
pub(in crate::ops) struct AsymmetricGrid {
    /// high − low.
    pub range: ValueId,
    /// max(range, 1e-8) / qmax.
    pub scale: ValueId,
    /// −low / scale, which the zero point is rounded from.
    pub shift: ValueId,
    /// The zero point.
    pub zero: ValueId,
    qmax: ValueId,
}

/// What a grid makes of values.
pub(in crate::ops) struct Codes {
    /// x / scale.
    pub quotient: ValueId,
    /// round(x / scale) + zero.
    pub shifted: ValueId,
    /// That, clipped to 0..qmax.
    pub clipped: ValueId,
    /// code − zero.
    pub centred: ValueId,
}

impl AsymmetricGrid {
    /// The grid from `low` to `high`.
    pub fn new(body: &mut Body, (low, high): (ValueId, ValueId), qmax: ValueId) -> Self {
        let range = body.op("range", "Sub", &[high, low]);
        let floor = body.float("floor", 1e-8);
        let wide = body.op("wide_range", "Max", &[range, floor]);
        let scale = body.op("scale", "Div", &[wide, qmax]);
        let negative = body.op("negative_low", "Neg", &[low]);
        let shift = body.op("zero_quotient", "Div", &[negative, scale]);
        let zero = body.op("zero_point", "Round", &[shift]);
        Self { range, scale, shift, zero, qmax }
    }

    /// The codes of `x`.
    pub fn codes(&self, body: &mut Body, x: ValueId) -> Codes {
        let quotient = body.op("quotient", "Div", &[x, self.scale]);
        let rounded = body.op("rounded", "Round", &[quotient]);
        let shifted = body.op("shifted", "Add", &[rounded, self.zero]);
        let bottom = body.float("bottom", 0.0);
        let clipped = body.op("codes", "Clip", &[shifted, bottom, self.qmax]);
        let centred = body.op("centred", "Sub", &[clipped, self.zero]);
        Codes { quotient, shifted, clipped, centred }
    }

    /// `x`, quantised and read back.
    pub fn round_trip(&self, body: &mut Body, x: ValueId) -> ValueId {
        let codes = self.codes(body, x);
        body.op("read_back", "Mul", &[codes.centred, self.scale])
    }
}
