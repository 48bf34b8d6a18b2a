//! Asymmetric quantisation of the values of a head.

use crate::Isa;
use crate::extremes::extremes;
use crate::pool::ThreadPool;
use crate::quantize::Step;
use crate::shared::SharedMut;
use crate::simd::{Simd, map1, simd_fn};

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
        let at = heads.start * head_dim..heads.end * head_dim;
        // SAFETY: each head is visited once.
        round_trip(isa, &x[at.clone()], head_dim, bits, clip, unsafe { out.part(at) });
    });
}

/// The grid of a head: codes are clip(round(x / scale) + zero, 0, q).
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    /// The distance of neighbours.
    pub(crate) scale: f32,
    /// What the zero point is rounded from: −low / scale.
    pub(crate) shift: f32,
    /// Whether the range of the values decides the scale, and not [`RANGE_FLOOR`].
    pub(crate) free: bool,
    /// The largest code.
    pub(crate) q: f32,
}

impl Grid {
    /// The grid for values from `low` to `high`.
    #[inline(always)]
    pub(crate) fn new((low, high): (f32, f32), bits: u32, clip: Clip) -> Self {
        let q = ((1u32 << bits.clamp(2, 8)) - 1) as f32;
        let (low, high) = (low * clip.min, high * clip.max);
        let scale = (high - low).max(RANGE_FLOOR) / q;
        Self { scale, shift: -low / scale, free: high - low > RANGE_FLOOR, q }
    }

    /// The zero point.
    #[inline(always)]
    pub(crate) fn zero(&self) -> f32 {
        self.shift.round_ties_even()
    }

    /// The quantiser's step.
    #[inline(always)]
    pub(crate) fn step<S: Simd>(&self) -> Step<S> {
        Step::new(self.scale, self.zero(), 0.0, self.q)
    }
}

simd_fn! {
    fn round_trip<S>(x: &[f32], head_dim: usize, bits: u32, clip: Clip, out: &mut [f32]) {
        for (x, out) in x.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
            let step = Grid::new(extremes::<S>(x), bits, clip).step::<S>();
            map1!(S, head_dim, x.as_ptr(), out.as_mut_ptr(), |v| step.round_trip(v));
        }
    }
}

simd_fn! {
    /// Quantises one head; returns scale and zero point.
    pub(super) fn quantize_head<S>(x: &[f32], bits: u32, clip: Clip, codes: &mut [u8]) -> (f32, f32) {
        assert!(codes.len() >= x.len(), "head codes length");
        let grid = Grid::new(extremes::<S>(x), bits, clip);
        let step = grid.step::<S>();
        for i in (0..x.len()).step_by(S::LANES) {
            let lanes = (x.len() - i).min(S::LANES);
            let v = S::load_m(x.as_ptr().add(i), S::first(lanes));
            S::store_bytes(codes.as_mut_ptr().add(i).cast(), step.codes(v), lanes);
        }
        (grid.scale, grid.zero())
    }
}
