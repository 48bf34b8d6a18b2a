//! Operators on two operands.

use super::number::{self, ALL, Number, count, launch, typed};
use super::walk::Walk;
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static BINARY: Source =
    Source { name: "binary.cu", text: include_str!("binary.cu"), archs: Archs::All, variants: ALL };

/// An operator on two operands, in the order of the codes in binary.cu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// a · b.
    Mul,
    /// a / b; of integers toward 0, and 0 where b is 0.
    Div,
    /// aᵇ.
    Pow,
    /// The remainder with the sign of b.
    Mod,
    /// The remainder with the sign of a.
    Fmod,
    /// The larger, NaN if a is.
    Max,
    /// The smaller, NaN if a is.
    Min,
    /// Bitwise and logical and.
    And,
    /// Bitwise and logical or.
    Or,
    /// Bitwise and logical exclusive or.
    Xor,
    /// a · sigmoid(a) · b.
    SwiGlu,
    /// a = b, as this and the following give bools.
    Equal,
    /// a > b.
    Greater,
    /// a ≥ b.
    GreaterOrEqual,
    /// a < b.
    Less,
    /// a ≤ b.
    LessOrEqual,
}

impl Binary {
    /// The type of the result on operands of type `number`.
    pub fn result(self, number: Number) -> Number {
        if self as i32 >= Self::Equal as i32 { Number::Bool } else { number }
    }
}

/// `y = a op b`, dense operands of type `number` and the given shapes, broadcast to `shape`, which
/// is y's.
///
/// # Errors
/// Shapes that do not broadcast, types that the operator does not take.
pub fn binary(
    gpu: &Gpu,
    op: Binary,
    number: Number,
    (a, a_shape): (DevicePtr, &[usize]),
    (b, b_shape): (DevicePtr, &[usize]),
    (y, shape): (DevicePtr, &[usize]),
) -> Result<(), GpuError> {
    match op {
        Binary::SwiGlu => number::float_only("SwiGLU", number)?,
        Binary::And | Binary::Or | Binary::Xor if number.is_float() => {
            return Err(GpuError::unsupported("bits of floats can't be combined"));
        }
        _ => {}
    }
    let walk = Walk::broadcast([a_shape, b_shape], shape)?;
    if shape.contains(&0) {
        return Ok(());
    }
    let per = 16 / number.bytes();
    let operands = [(a, number.bytes()), (b, number.bytes())];
    let aligned = y.0.is_multiple_of((per * op.result(number).bytes()) as u64);
    let (entry, walk) = match walk.stretched(per, operands).filter(|_| aligned) {
        Some(stretched) => ("binary_vector", stretched),
        None => ("binary_scalar", walk),
    };
    let f = typed(gpu, &BINARY, entry, number)?;
    let args = Args::new().i32(op as i32).ptr(a).ptr(b).ptr(y).i32(count(walk.n())?);
    launch(gpu, &f, walk.n(), &args.bytes(&walk.to_bytes()))
}
