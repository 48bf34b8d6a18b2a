//! Symmetric quantisation of rows, read back.

use super::{Amplitude, CHUNK_VALUES, ClipSums, load, store, sum_of_chunks};
use crate::extremes::{extremes, first};
use crate::pool::ThreadPool;
use crate::quantize::Step;
use crate::shared::SharedMut;
use crate::simd::{Simd, map1, simd_fn};
use crate::{Clip, Isa, QuantSpec};

/// out = code · scale of the rows of `x` `[m, n]`, as [`crate::quantize_rows`] makes them.
///
/// # Panics
/// When the lengths disagree.
pub fn fake_quantize_rows(
    pool: &ThreadPool,
    isa: Isa,
    x: &[f32],
    n: usize,
    spec: QuantSpec,
    out: &mut [f32],
) {
    let m = if n == 0 { 0 } else { x.len() / n };
    assert!(x.len() == m * n && out.len() == x.len(), "fake_quantize_rows lengths");
    let out = SharedMut::new(out);
    pool.for_each_chunk(m, CHUNK_VALUES.div_ceil(n.max(1)), |rows| {
        let at = rows.start * n..rows.end * n;
        // SAFETY: each row is visited once.
        round_trip(isa, &x[at.clone()], n, spec, unsafe { out.part(at) });
    });
}

/// The gradient of [`fake_quantize_rows`]: `dx` `[m, n]` from `dy` and `x` `[m, n]`; returns those
/// of the clipping factors, summed over the rows.
///
/// # Panics
/// When the lengths disagree.
pub fn fake_quantize_rows_grad(
    pool: &ThreadPool,
    isa: Isa,
    dy: &[f32],
    x: &[f32],
    n: usize,
    spec: QuantSpec,
    dx: &mut [f32],
) -> Clip {
    let m = if n == 0 { 0 } else { x.len() / n };
    let lengths = dy.len() == x.len() && x.len() == m * n && dx.len() == x.len();
    assert!(lengths, "fake_quantize_rows_grad lengths");
    let dx = SharedMut::new(dx);
    sum_of_chunks(pool, m, n, |rows| {
        let at = rows.start * n..rows.end * n;
        // SAFETY: each row is visited once.
        gradient(isa, &dy[at.clone()], &x[at.clone()], n, spec, unsafe { dx.part(at) })
    })
}

simd_fn! {
    fn round_trip<S>(x: &[f32], n: usize, spec: QuantSpec, out: &mut [f32]) {
        let clip = Clip { min: spec.clip_min, max: spec.clip_max };
        let q_max = spec.q_max();
        for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            let scale = Amplitude::new(extremes::<S>(x), clip).floored() / q_max;
            let step = Step::<S>::new(scale, 0.0, -q_max - 1.0, q_max);
            map1!(S, n, x.as_ptr(), out.as_mut_ptr(), |v| step.round_trip(v));
        }
    }
}

simd_fn! {
    fn gradient<S>(dy: &[f32], x: &[f32], n: usize, spec: QuantSpec, dx: &mut [f32]) -> ClipSums {
        let clip = Clip { min: spec.clip_min, max: spec.clip_max };
        let q_max = spec.q_max();
        let mut sums = ClipSums::default();
        let rows = dy.chunks_exact(n).zip(x.chunks_exact(n)).zip(dx.chunks_exact_mut(n));
        for ((dy, x), dx) in rows {
            let range = extremes::<S>(x);
            let amplitude = Amplitude::new(range, clip);
            let scale = amplitude.floored() / q_max;
            let step = Step::<S>::new(scale, 0.0, -q_max - 1.0, q_max);
            let of_amplitude = row_gradient::<S>(&step, dy, x, dx) / q_max;
            let Some(extreme) = amplitude.decided_by(range, clip) else { continue };
            let (of_value, of_clip) = extreme.gradients(of_amplitude);
            dx[first::<S>(x, extreme.value, extreme.sign)] += of_value;
            let sum = if extreme.sign > 0.0 { &mut sums.max } else { &mut sums.min };
            *sum += f64::from(of_clip);
        }
        sums
    }
}

/// Writes the gradient of a row for a fixed scale, and returns that of the scale.
#[inline(always)]
unsafe fn row_gradient<S: Simd>(step: &Step<S>, dy: &[f32], x: &[f32], dx: &mut [f32]) -> f32 {
    let n = x.len();
    let zero = S::splat(0.0);
    let mut sum = zero;
    for i in (0..n).step_by(S::LANES) {
        let lanes = (n - i).min(S::LANES);
        // SAFETY: the three slices have `n` elements.
        unsafe {
            let g = load::<S>(dy.as_ptr().add(i), lanes);
            let (inside, slope) = step.through(load::<S>(x.as_ptr().add(i), lanes), g, zero);
            sum = S::fma(g, slope, sum);
            store::<S>(dx.as_mut_ptr().add(i), inside, lanes);
        }
    }
    S::reduce_add(sum)
}
