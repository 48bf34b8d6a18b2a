//! RMSNorm and LayerNorm of rows, with an optional residual addition before them.

use crate::Isa;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{map1, map2, simd_fn, sum1};

/// Values below which rows are not worth another thread.
const MIN_VALUES: usize = 8_192;

/// An addition done before a norm: `sum` = x + `add`, and the norm is taken of `sum`.
#[derive(Debug)]
pub struct Residual<'a> {
    /// What is added to each row, `[m, n]`.
    pub add: &'a [f32],
    /// Receives the sum, `[m, n]`.
    pub sum: &'a mut [f32],
}

/// out = x / sqrt(mean(x²) + eps) · weight for each row of `x` `[m, n]`, with n = `weight.len()`
/// (Zhang and Sennrich 2019; ONNX RMSNormalization over the last axis).
///
/// # Panics
/// When the lengths disagree.
pub fn rms_norm(
    pool: &ThreadPool,
    isa: Isa,
    x: &[f32],
    residual: Option<Residual<'_>>,
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    each_row(pool, isa, x, residual, weight.len(), out, |row, out| {
        rms_norm_row(isa, row, weight, eps, out);
    });
}

/// out = (x − mean) / sqrt(variance + eps) · weight + bias for each row of `x` `[m, n]`, with
/// n = `weight.len()` (ONNX LayerNormalization over the last axis).
///
/// # Panics
/// When the lengths disagree.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm(
    pool: &ThreadPool,
    isa: Isa,
    x: &[f32],
    residual: Option<Residual<'_>>,
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    assert!(bias.is_none_or(|b| b.len() == weight.len()), "layer_norm bias length");
    each_row(pool, isa, x, residual, weight.len(), out, |row, out| {
        layer_norm_row(isa, row, weight, bias, eps, out);
    });
}

fn each_row(
    pool: &ThreadPool,
    isa: Isa,
    x: &[f32],
    residual: Option<Residual<'_>>,
    n: usize,
    out: &mut [f32],
    f: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let m = if n == 0 { 0 } else { x.len() / n };
    assert!(x.len() == m * n && out.len() == x.len(), "norm lengths");
    let residual = residual.map(|r| {
        assert!(r.add.len() == x.len() && r.sum.len() == x.len(), "norm residual lengths");
        (r.add, SharedMut::new(r.sum))
    });
    let out = SharedMut::new(out);
    pool.for_each_chunk(m, MIN_VALUES.div_ceil(n.max(1)), |rows| {
        for i in rows {
            let at = i * n..(i + 1) * n;
            let mut row = &x[at.clone()];
            if let Some((add, sum)) = residual {
                // SAFETY: each row is visited once.
                let sum = unsafe { sum.part(at.clone()) };
                add_row(isa, row, &add[at.clone()], sum);
                row = sum;
            }
            // SAFETY: each row is visited once.
            f(row, unsafe { out.part(at) });
        }
    });
}

simd_fn! {
    fn add_row<S>(x: &[f32], y: &[f32], out: &mut [f32]) {
        let n = out.len().min(x.len()).min(y.len());
        map2!(S, n, x.as_ptr(), y.as_ptr(), out.as_mut_ptr(), |x, y| S::add(x, y));
    }
}

simd_fn! {
    /// RMSNorm of one row.
    pub(crate) fn rms_norm_row<S>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let n = x.len();
        assert!(weight.len() == n && out.len() == n, "norm lengths");
        let squares = sum1!(S, n, x.as_ptr(), |acc, v| S::fma(v, v, acc));
        let factor = S::splat(1.0 / (squares / n as f32 + eps).sqrt());
        map2!(S, n, x.as_ptr(), weight.as_ptr(), out.as_mut_ptr(), |x, w| {
            S::mul(S::mul(x, factor), w)
        });
    }
}

simd_fn! {
    fn layer_norm_row<S>(
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        eps: f32,
        out: &mut [f32],
    ) {
        let n = x.len();
        assert!(weight.len() == n && out.len() == n, "norm lengths");
        let mean = sum1!(S, n, x.as_ptr(), |acc, v| S::add(acc, v)) / n as f32;
        let shift = S::splat(-mean);
        map1!(S, n, x.as_ptr(), out.as_mut_ptr(), |v| S::add(v, shift));
        let squares = sum1!(S, n, out.as_ptr(), |acc, v| S::fma(v, v, acc));
        let factor = S::splat(1.0 / (squares / n as f32 + eps).sqrt());
        let p = out.as_mut_ptr();
        map2!(S, n, p, weight.as_ptr(), p, |v, w| S::mul(S::mul(v, factor), w));
        if let Some(bias) = bias {
            map2!(S, n, p, bias.as_ptr(), p, |v, b| S::add(v, b));
        }
    }
}
