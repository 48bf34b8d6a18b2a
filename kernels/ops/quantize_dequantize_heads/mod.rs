//! planish's `QuantizeDequantizeHeads`: what a quantised key-value cache makes of keys or values.
//! Each head's vector is quantised asymmetrically and read back.
//!
//! qmax = 2^bits − 1; lo = clip_min · min; hi = clip_max · max; scale = max(hi − lo, 1e-8) / qmax;
//! zp = round_half_even(−lo / scale); code = clip(round_half_even(x / scale) + zp, 0, qmax);
//! the result is (code − zp) · scale.

use planish_ir::{Dim, Function, Tensor};

use super::support::body::{self, Body};
use super::support::quant::Quantiser;
use super::support::{Dense, facts};
use super::transform_heads::n_heads;
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("QuantizeDequantizeHeads", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_function(function)];

/// The attribute `head_size`, which must be positive.
fn head_size(op: &OpNode) -> Result<usize, OpError> {
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
    let whole = body.shape("whole", x, 0, None);
    let outer = body.shape("outer", x, 0, Some(-1));
    let heads = body.ints("heads", &[-1]);
    let size = body.int_attribute("head_size");
    let first = body.ints("first", &[0]);
    let size = body.op("size", "Unsqueeze", &[size, first]);
    let rows = body.reshape("by_head", x, &[outer, heads, size]);
    let y = round_trip(&mut body, rows);
    let y = body.reshape("shaped", y, &[whole]);
    body.finish(&[(y, "Y")])
}

/// Quantises the rows of `x` and reads them back.
fn round_trip(body: &mut Body, x: planish_ir::ValueId) -> planish_ir::ValueId {
    let qmax = body::largest_code(body, false);
    let (low, high) = body::clipped_extremes(body, x);
    let range = body.op("range", "Sub", &[high, low]);
    let floor = body.float("floor", 1e-8);
    let range = body.op("wide_range", "Max", &[range, floor]);
    let scale = body.op("scale", "Div", &[range, qmax]);
    let negative = body.op("negative_low", "Neg", &[low]);
    let zero = body.op("zero_quotient", "Div", &[negative, scale]);
    let zero = body.op("zero_point", "Round", &[zero]);
    let quotient = body.op("quotient", "Div", &[x, scale]);
    let rounded = body.op("rounded", "Round", &[quotient]);
    let shifted = body.op("shifted", "Add", &[rounded, zero]);
    let bottom = body.float("bottom", 0.0);
    let codes = body.op("codes", "Clip", &[shifted, bottom, qmax]);
    let centred = body.op("centred", "Sub", &[codes, zero]);
    body.op("read_back", "Mul", &[centred, scale])
}
