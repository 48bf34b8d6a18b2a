//! Operators on one operand.

use super::number::{self, ALL, Number, count, launch, typed};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static UNARY: Source =
    Source { name: "unary.cu", text: include_str!("unary.cu"), archs: Archs::All, variants: ALL };

/// An operator on one operand, in the order of the codes in unary.cu. Those from `Sqrt` on are for
/// floats only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are named as ONNX's operators")]
pub enum Unary {
    Neg,
    Abs,
    Sign,
    Relu,
    Not,
    BitwiseNot,
    Sqrt,
    Reciprocal,
    Exp,
    Log,
    Erf,
    Tanh,
    Sigmoid,
    /// The parameter is the slope below 0.
    LeakyRelu,
    /// The parameter is the factor below 0.
    Elu,
    Softplus,
    Round,
    Floor,
    Ceil,
    Cos,
    Sin,
    Gelu,
    GeluTanh,
    /// x · sigmoid(parameter · x).
    Swish,
    IsNan,
    /// The parameter is 1 for +∞, 2 for −∞, 3 for both.
    IsInf,
}

impl Unary {
    /// The type of the result on an operand of type `number`.
    pub fn result(self, number: Number) -> Number {
        if matches!(self, Self::IsNan | Self::IsInf) { Number::Bool } else { number }
    }
}

/// `y = op(x)` of `n` dense elements of type `number`.
///
/// # Errors
/// Types that the operator does not take.
pub fn unary(
    gpu: &Gpu,
    op: Unary,
    parameter: f32,
    number: Number,
    x: DevicePtr,
    y: DevicePtr,
    n: usize,
) -> Result<(), GpuError> {
    if op as i32 >= Unary::Sqrt as i32 {
        number::float_only(&format!("{op:?}"), number)?;
    }
    let per = 16 / number.bytes();
    let is_aligned = |p: DevicePtr, bytes: usize| p.0.is_multiple_of((per * bytes) as u64);
    let is_whole = n.is_multiple_of(per)
        && is_aligned(x, number.bytes())
        && is_aligned(y, op.result(number).bytes());
    let (entry, n) = if is_whole { ("unary_vector", n / per) } else { ("unary_scalar", n) };
    if n == 0 {
        return Ok(());
    }
    let f = typed(gpu, &UNARY, entry, number)?;
    let args = Args::new().i32(op as i32).f32(parameter).ptr(x).ptr(y).i32(count(n)?);
    launch(gpu, &f, n, &args)
}

/// `y = min(max(x, low), high)` of `n` dense elements; the bounds are single elements.
///
/// # Errors
/// If there are too many elements.
pub fn clip(
    gpu: &Gpu,
    number: Number,
    x: DevicePtr,
    (low, high): (Option<DevicePtr>, Option<DevicePtr>),
    y: DevicePtr,
    n: usize,
) -> Result<(), GpuError> {
    if n == 0 {
        return Ok(());
    }
    let f = typed(gpu, &UNARY, "clip", number)?;
    let args = Args::new().ptr(x).optional(low).optional(high).ptr(y).i32(count(n)?);
    launch(gpu, &f, n, &args)
}
