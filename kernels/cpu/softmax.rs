//! Softmax over rows.

use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{Simd, map1, simd_fn, sum1};
use crate::{Isa, math};

/// Values below which rows are not worth another thread.
const MIN_VALUES: usize = 4_096;

/// out = e^(x − max) / Σ e^(x − max) for each row of `n` values; a row of −∞ alone gives zeros.
///
/// # Panics
/// When the lengths disagree.
pub fn softmax_rows(pool: &ThreadPool, isa: Isa, x: &[f32], n: usize, out: &mut [f32]) {
    let m = if n == 0 { 0 } else { x.len() / n };
    assert!(x.len() == m * n && out.len() == x.len(), "softmax lengths");
    let out = SharedMut::new(out);
    pool.for_each_chunk(m, MIN_VALUES.div_ceil(n.max(1)), |rows| {
        for i in rows {
            let at = i * n..(i + 1) * n;
            // SAFETY: each row is visited once.
            softmax_row(isa, &x[at.clone()], unsafe { out.part(at) });
        }
    });
}

simd_fn! {
    fn softmax_row<S>(x: &[f32], out: &mut [f32]) {
        let max = max_of::<S>(x);
        if max == f32::NEG_INFINITY {
            return out.fill(0.0);
        }
        let shift = S::splat(-max);
        let (n, p) = (x.len().min(out.len()), out.as_mut_ptr());
        map1!(S, n, x.as_ptr(), p, |v| math::exp::<S>(S::add(v, shift)));
        let factor = S::splat(1.0 / sum1!(S, n, p, |acc, v| S::add(acc, v)));
        map1!(S, n, p, p, |v| S::mul(v, factor));
    }
}

/// The largest value, −∞ for none.
#[inline(always)]
pub(crate) fn max_of<S: Simd>(x: &[f32]) -> f32 {
    let mut acc = [S::splat(f32::NEG_INFINITY); 2];
    let whole = x.len() / (2 * S::LANES) * (2 * S::LANES);
    for i in (0..whole).step_by(2 * S::LANES) {
        // SAFETY: both vectors lie inside the slice.
        unsafe {
            acc[0] = S::max(acc[0], S::load(x.as_ptr().add(i)));
            acc[1] = S::max(acc[1], S::load(x.as_ptr().add(i + S::LANES)));
        }
    }
    let tail = x[whole..].iter().copied().fold(f32::NEG_INFINITY, f32::max);
    S::reduce_max(S::max(acc[0], acc[1])).max(tail)
}
