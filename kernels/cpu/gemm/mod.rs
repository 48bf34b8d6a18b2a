//! Matrix products in a precision of the caller's choice, c = alpha·a·b + beta·c.

#[cfg(target_arch = "x86_64")]
mod bf16;

use crate::mat::{MatMut, MatRef};
use crate::pool::ThreadPool;
use crate::{Isa, sgemm};

/// What the factors of f32 matrix products are rounded to; sums are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProductPrecision {
    /// Not at all.
    #[default]
    F32,
    /// To bfloat16 where the machine multiplies that faster: good enough for training, where the
    /// rounding of gradients averages out.
    BF16,
}

/// c\[m, n\] = alpha · a\[m, k\] · b\[k, n\] + beta · c, all f32 with f32 sums.
///
/// With [`ProductPrecision::BF16`], and a machine (and `isa`) with AMX-BF16 or a fast AVX512-BF16,
/// the elements of A and B are rounded to bfloat16 (to nearest, halves to even; numbers below
/// 2⁻¹²⁶ to zero) and multiplied exactly. Else this is [`sgemm`]. Any strides are taken; with
/// `beta == 0.0`, C is not read.
///
/// # Panics
/// When the shapes disagree or a view reaches outside its slice.
#[allow(clippy::too_many_arguments)]
pub fn gemm(
    pool: &ThreadPool,
    isa: Isa,
    precision: ProductPrecision,
    alpha: f32,
    a: MatRef<'_>,
    b: MatRef<'_>,
    beta: f32,
    c: MatMut<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    if precision == ProductPrecision::BF16
        && let Some(unit) = bf16::Unit::of(isa)
        && a.cols > 0
    {
        return bf16::product(pool, unit, alpha, a, b, beta, c);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = precision;
    sgemm(pool, isa, alpha, a, b, beta, c);
}

/// Whether [`gemm`] in [`ProductPrecision::BF16`] differs from [`sgemm`] at this level.
pub fn multiplies_bf16(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    return bf16::Unit::of(isa).is_some();
    #[cfg(not(target_arch = "x86_64"))]
    return {
        let _ = isa;
        false
    };
}
