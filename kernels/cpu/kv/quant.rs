//! Asymmetric quantisation of the values of a head.

use crate::Isa;
use crate::pool::ThreadPool;
use crate::quantize::Step;
use crate::shared::SharedMut;
use crate::simd::{Simd, simd_fn};

/// The smallest range of a head.
const RANGE_FLOOR: f32 = 1e-8;
/// Values below which heads are not worth another thread.
const MIN_VALUES: usize = 8_192;

/// Factors on the extremes of a head's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Factor on the smallest value.
    pub min: f32,
    /// Factor on the largest value.
    pub max: f32,
}

impl Default for Clip {
    fn default() -> Self {
        Self { min: 1.0, max: 1.0 }
    }
}

/// out = the heads of `x` `[rows, n_heads·head_dim]`, each quantised as [`crate::KvFormat`]
/// defines with `bits` (2 to 8) and read back.
///
/// # Panics
/// When the lengths disagree.
#[allow(clippy::too_many_arguments)]
pub fn quantize_dequantize_heads(
    pool: &ThreadPool,
    isa: Isa,
    x: &[f32],
    n_heads: usize,
    head_dim: usize,
    bits: u32,
    clip: Clip,
    out: &mut [f32],
) {
    let width = n_heads * head_dim;
    assert!(x.len() == out.len() && (width == 0 || x.len().is_multiple_of(width)), "head lengths");
    if head_dim == 0 {
        return;
    }
    let out = SharedMut::new(out);
    pool.for_each_chunk(x.len() / head_dim, MIN_VALUES.div_ceil(head_dim), |heads| {
        let mut codes = vec![0u8; head_dim];
        for h in heads {
            let at = h * head_dim..(h + 1) * head_dim;
            let (scale, zero) = quantize_head(isa, &x[at.clone()], bits, clip, &mut codes);
            // SAFETY: each head is visited once.
            for (y, &code) in unsafe { out.part(at) }.iter_mut().zip(&codes) {
                *y = (f32::from(code) - zero) * scale;
            }
        }
    });
}

simd_fn! {
    /// Quantises one head; returns scale and zero point.
    pub(super) fn quantize_head<S>(x: &[f32], bits: u32, clip: Clip, codes: &mut [u8]) -> (f32, f32) {
        assert!(codes.len() >= x.len(), "head codes length");
        let q = ((1u32 << bits.clamp(2, 8)) - 1) as f32;
        let (low, high) = extrema::<S>(x);
        let (low, high) = (low * clip.min, high * clip.max);
        let scale = (high - low).max(RANGE_FLOOR) / q;
        let zero = (-low / scale).round_ties_even();
        let step = Step::<S>::new(scale, zero, 0.0, q);
        for i in (0..x.len()).step_by(S::LANES) {
            let lanes = (x.len() - i).min(S::LANES);
            let v = S::load_m(x.as_ptr().add(i), S::first(lanes));
            S::store_bytes(codes.as_mut_ptr().add(i).cast(), step.codes(v), lanes);
        }
        (scale, zero)
    }
}

/// The smallest and the largest value; zeros for none.
#[inline(always)]
unsafe fn extrema<S: Simd>(x: &[f32]) -> (f32, f32) {
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
