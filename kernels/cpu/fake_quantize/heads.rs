//! The gradient of the asymmetric quantisation of heads, [`crate::quantize_dequantize_heads`].
//!
//! With s = (hi − lo) / q, hi = clip_max · max, lo = clip_min · min, u = −lo / s, t = x / s and
//! y = (code − zero) · s, where zero = round(u) and rounding counts as the identity:
//! - inside the range y = x, so dx = dy and ∂y/∂s = round(t) − t; the zero point cancels;
//! - where the code is clipped ∂y/∂s = (code − zero) + u and ∂y/∂lo = 1: the value moves with the
//!   zero point alone.
//!
//! So hi gets Σ dy · ∂y/∂s / q, and lo the negative of that and Σ dy over what is clipped. Where
//! the floor of the range decides s, only the latter remains.

use super::{ClipSums, load, store, sum_of_chunks};
use crate::extremes::{extremes, first};
use crate::kv::Grid;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{Simd, simd_fn};
use crate::{Clip, Isa};

/// The gradient of [`crate::quantize_dequantize_heads`]: `dx` from `dy` and `x`, all
/// `[heads of all rows, head_dim]`; returns those of the clipping factors, summed over the heads.
///
/// # Panics
/// When the lengths disagree.
#[allow(clippy::too_many_arguments)]
pub fn fake_quantize_heads_grad(
    pool: &ThreadPool,
    isa: Isa,
    dy: &[f32],
    x: &[f32],
    head_dim: usize,
    bits: u32,
    clip: Clip,
    dx: &mut [f32],
) -> Clip {
    let n_heads = if head_dim == 0 { 0 } else { x.len() / head_dim };
    let lengths = dy.len() == x.len() && x.len() == n_heads * head_dim && dx.len() == x.len();
    assert!(lengths, "fake_quantize_heads_grad lengths");
    let dx = SharedMut::new(dx);
    sum_of_chunks(pool, n_heads, head_dim, |heads| {
        let at = heads.start * head_dim..heads.end * head_dim;
        // SAFETY: each head is visited once.
        let dx = unsafe { dx.part(at.clone()) };
        gradient(isa, &dy[at.clone()], &x[at], head_dim, bits, clip, dx)
    })
}

simd_fn! {
    fn gradient<S>(
        dy: &[f32],
        x: &[f32],
        head_dim: usize,
        bits: u32,
        clip: Clip,
        dx: &mut [f32],
    ) -> ClipSums {
        let mut sums = ClipSums::default();
        let heads = dy.chunks_exact(head_dim).zip(x.chunks_exact(head_dim));
        for ((dy, x), dx) in heads.zip(dx.chunks_exact_mut(head_dim)) {
            let (low, high) = extremes::<S>(x);
            let grid = Grid::new((low, high), bits, clip);
            let (of_scale, clipped) = head_gradient::<S>(grid, dy, x, dx);
            let of_high = if grid.free { of_scale / grid.q } else { 0.0 };
            let of_low = clipped - of_high;
            dx[first::<S>(x, high, 1.0)] += of_high * clip.max;
            dx[first::<S>(x, low, -1.0)] += of_low * clip.min;
            sums.max += f64::from(of_high * high);
            sums.min += f64::from(of_low * low);
        }
        sums
    }
}

/// Writes the gradient of a head for a fixed grid, and returns that of the scale and the sum of
/// `dy` over what is clipped.
#[inline(always)]
unsafe fn head_gradient<S: Simd>(grid: Grid, dy: &[f32], x: &[f32], dx: &mut [f32]) -> (f32, f32) {
    let n = x.len();
    let (step, minus_u) = (grid.step::<S>(), S::splat(-grid.shift));
    let (mut of_scale, mut clipped) = (S::splat(0.0), S::splat(0.0));
    for i in (0..n).step_by(S::LANES) {
        let lanes = (n - i).min(S::LANES);
        // SAFETY: the three slices have `n` elements.
        unsafe {
            let g = load::<S>(dy.as_ptr().add(i), lanes);
            let (inside, slope) = step.through(load::<S>(x.as_ptr().add(i), lanes), g, minus_u);
            of_scale = S::fma(g, slope, of_scale);
            clipped = S::add(clipped, S::sub(g, inside));
            store::<S>(dx.as_mut_ptr().add(i), inside, lanes);
        }
    }
    (S::reduce_add(of_scale), S::reduce_add(clipped))
}
