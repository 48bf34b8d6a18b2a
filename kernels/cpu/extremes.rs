//! The smallest and the largest of some values, and where they stand first.

use crate::simd::Simd;

/// The smallest and the largest value; zeros for none.
///
/// # Safety
/// Only for kernels made by [`simd_fn!`](crate::simd::simd_fn).
#[inline(always)]
pub(crate) unsafe fn extremes<S: Simd>(x: &[f32]) -> (f32, f32) {
    if x.len() < S::LANES {
        let first = x.first().copied().unwrap_or(0.0);
        return x.iter().fold((first, first), |(low, high), &v| (low.min(v), high.max(v)));
    }
    // SAFETY: the slice holds a vector at least; the last may overlap the one before.
    unsafe {
        let mut low = S::load(x.as_ptr());
        let mut high = low;
        for i in (S::LANES..x.len()).step_by(S::LANES) {
            let v = S::load(x.as_ptr().add(i.min(x.len() - S::LANES)));
            low = S::min(low, v);
            high = S::max(high, v);
        }
        (S::reduce_min(low), S::reduce_max(high))
    }
}

/// The index of the first element equal to `value`, which is the largest (`sign` 1) or the
/// smallest (`sign` −1) of them; 0 if there is none.
///
/// # Safety
/// As for [`extremes`].
#[inline(always)]
pub(crate) unsafe fn first<S: Simd>(x: &[f32], value: f32, sign: f32) -> usize {
    // No element is beyond the extreme, so those beyond its neighbour are equal to it.
    let (signs, before) = (S::splat(sign), S::splat(just_before(value, sign)));
    let whole = x.len() / S::LANES * S::LANES;
    let mut start = 0;
    // SAFETY: the vectors lie inside the slice.
    unsafe {
        while start < whole && !S::any_gt(S::mul(S::load(x.as_ptr().add(start)), signs), before) {
            start += S::LANES;
        }
    }
    x[start..].iter().position(|v| *v == value).map_or(0, |i| start + i)
}

/// The largest number below sign · value.
#[inline(always)]
pub(crate) fn just_before(value: f32, sign: f32) -> f32 {
    (sign * value).next_down()
}
