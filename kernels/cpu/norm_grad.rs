//! Gradients of RMSNorm and LayerNorm of rows: one pass over the rows, each of which is read from
//! memory once and then found in the first cache.

use std::ops::Range;

use crate::Isa;
use crate::partial_sums::sum_over_rows;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{simd_fn, zip_map, zip_sum};

/// Rows that share a vector of partial sums at least, so that adding the vectors up is cheap.
const MIN_ROWS: usize = 16;
/// Values below which rows are not worth another thread.
const MIN_VALUES: usize = 8_192;

/// Gradients of [`rms_norm`](crate::rms_norm) from that of its output, `dy` `[m, n]`, with
/// n = `weight.len()`: `dx` `[m, n]` and `dweight` `[n]`.
///
/// With r = 1 / √(mean(x²) + eps): dweight = Σ dy·x·r over the rows, and
/// dx = r·dy·weight − x·r³·mean(dy·weight·x).
///
/// # Panics
/// When the lengths disagree.
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_grad(
    pool: &ThreadPool,
    isa: Isa,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    assert_eq!(weight.len(), dweight.len(), "norm gradient lengths");
    each_row(pool, isa, [dy, x], weight.len(), dx, dweight, |dy, x, dx, dweight| {
        rms_norm_grad_row(isa, dy, x, weight, eps, dx, dweight);
    });
}

/// Gradients of [`layer_norm`](crate::layer_norm) from that of its output, `dy` `[m, n]`, with
/// n = `weight.len()`: `dx` `[m, n]`, and in `dweight_dbias` `[2, n]` those of weight and bias.
///
/// With x̂ = (x − mean(x))·r, r = 1 / √(variance + eps): dweight = Σ dy·x̂ and dbias = Σ dy over
/// the rows, and dx = r·(g − mean(g) − x̂·mean(g·x̂)) with g = dy·weight.
///
/// # Panics
/// When the lengths disagree.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_grad(
    pool: &ThreadPool,
    isa: Isa,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dx: &mut [f32],
    dweight_dbias: &mut [f32],
) {
    let n = weight.len();
    assert_eq!(2 * n, dweight_dbias.len(), "norm gradient lengths");
    each_row(pool, isa, [dy, x], n, dx, dweight_dbias, |dy, x, dx, sums| {
        let (dweight, dbias) = sums.split_at_mut(n);
        layer_norm_grad_row(isa, dy, x, weight, eps, dx, dweight, dbias);
    });
}

/// Calls `f` with each row of `dy`, `x` and `dx`, and a vector to add the row's part of `sums` to.
fn each_row(
    pool: &ThreadPool,
    isa: Isa,
    [dy, x]: [&[f32]; 2],
    n: usize,
    dx: &mut [f32],
    sums: &mut [f32],
    f: impl Fn(&[f32], &[f32], &mut [f32], &mut [f32]) + Sync,
) {
    let m = if n == 0 { 0 } else { x.len() / n };
    assert!(x.len() == m * n && dy.len() == m * n && dx.len() == m * n, "norm gradient lengths");
    let dx = SharedMut::new(dx);
    let min_rows = MIN_ROWS.max(MIN_VALUES.div_ceil(n.max(1)));
    sum_over_rows(pool, isa, m, min_rows, sums, |rows: Range<usize>, sums| {
        for i in rows {
            let at = i * n..(i + 1) * n;
            // SAFETY: each row is visited once.
            let dx = unsafe { dx.part(at.clone()) };
            f(&dy[at.clone()], &x[at], dx, sums);
        }
    });
}

simd_fn! {
    fn rms_norm_grad_row<S>(
        dy: &[f32],
        x: &[f32],
        weight: &[f32],
        eps: f32,
        dx: &mut [f32],
        dweight: &mut [f32],
    ) {
        let n = x.len();
        assert!([dy.len(), weight.len(), dx.len(), dweight.len()] == [n; 4], "norm lengths");
        let (dy, x, w, dw) = (dy.as_ptr(), x.as_ptr(), weight.as_ptr(), dweight.as_mut_ptr());
        let [squares, dot] = zip_sum!(S, n, [dy: dy, x: x, w: w], 2, {
            [S::mul(x, x), S::mul(S::mul(dy, w), x)]
        });
        let r = 1.0 / (squares / n as f32 + eps).sqrt();
        let (factor, along) = (S::splat(r), S::splat(-dot / n as f32 * r * r * r));
        zip_map!(S, n, [dy: dy, x: x, w: w, dw: dw] => [dx.as_mut_ptr(), dw], {
            let scaled = S::mul(dy, factor);
            [S::fma(x, along, S::mul(scaled, w)), S::fma(scaled, x, dw)]
        });
    }
}

simd_fn! {
    fn layer_norm_grad_row<S>(
        dy: &[f32],
        x: &[f32],
        weight: &[f32],
        eps: f32,
        dx: &mut [f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        let n = x.len();
        let lengths = [dy.len(), weight.len(), dx.len(), dweight.len(), dbias.len()];
        assert!(lengths == [n; 5], "norm lengths");
        let inverse = 1.0 / n as f32;
        let (dy, x, w, dx) = (dy.as_ptr(), x.as_ptr(), weight.as_ptr(), dx.as_mut_ptr());
        let (dw, db) = (dweight.as_mut_ptr(), dbias.as_mut_ptr());
        let [sum] = zip_sum!(S, n, [x: x], 1, [x]);
        let mean = S::splat(sum * inverse);
        zip_map!(S, n, [x: x] => [dx], [S::sub(x, mean)]);
        let [squares, sum, dot] = zip_sum!(S, n, [dy: dy, d: dx, w: w], 3, {
            let g = S::mul(dy, w);
            [S::mul(d, d), g, S::mul(g, d)]
        });
        let r = 1.0 / (squares * inverse + eps).sqrt();
        let (factor, shift) = (S::splat(r), S::splat(-sum * inverse * r));
        let along = S::splat(-dot * inverse * r * r);
        zip_map!(S, n, [dy: dy, d: dx, w: w, dw: dw, db: db] => [dx, dw, db], {
            let (normal, scaled) = (S::mul(d, factor), S::mul(dy, factor));
            let dx = S::fma(normal, along, S::fma(scaled, w, shift));
            [dx, S::fma(dy, normal, dw), S::add(db, dy)]
        });
    }
}
