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
/// smallest (`sign` −1) of them; 0 if there is none. Indices up to 2²⁴ are exact.
///
/// # Safety
/// As for [`extremes`].
#[inline(always)]
pub(crate) unsafe fn first<S: Simd>(x: &[f32], value: f32, sign: f32) -> usize {
    // No element is beyond the extreme, so those beyond its neighbour are equal to it. All are
    // looked at: in short rows a branch that leaves early is mispredicted too often.
    let (signs, before) = (S::splat(sign), S::splat(just_before(value, sign)));
    let none = S::splat(f32::INFINITY);
    let mut at = none;
    // SAFETY: the vectors lie inside the slice, the last one is masked. Zeros beyond its end come
    // after an element that is equal.
    let found = unsafe {
        let mut index = S::load(LANE_INDICES.as_ptr());
        for i in (0..x.len()).step_by(S::LANES) {
            let lanes = (x.len() - i).min(S::LANES);
            let p = x.as_ptr().add(i);
            let v = if lanes == S::LANES { S::load(p) } else { S::load_m(p, S::first(lanes)) };
            at = S::min(at, S::select_lt(before, S::mul(v, signs), index, none));
            index = S::add(index, S::splat(S::LANES as f32));
        }
        S::reduce_min(at) as usize
    };
    if found < x.len() { found } else { 0 }
}

/// The numbers of the lanes of the widest vectors.
static LANE_INDICES: [f32; 16] =
    [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// The largest number below sign · value.
#[inline(always)]
pub(crate) fn just_before(value: f32, sign: f32) -> f32 {
    (sign * value).next_down()
}
