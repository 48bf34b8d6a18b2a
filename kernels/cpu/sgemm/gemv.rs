//! One row times a matrix: bound by the reading of the matrix.

use crate::mat::MatRef;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{Simd, simd_fn};
use crate::{Isa, scratch};
use std::ops::Range;

/// Columns summed at a time by the row-wise form; their sums stay in the first cache.
const STRIPE: usize = 1024;
/// Values of B a thread should have at least.
const MIN_WORK: usize = 16_384;

/// `y = alpha·a·b + beta·y` for a one-row `a` and a `b` with contiguous rows or columns.
pub(super) fn gemv(
    pool: &ThreadPool,
    isa: Isa,
    alpha: f32,
    a: MatRef<'_>,
    b: MatRef<'_>,
    beta: f32,
    y: &mut [f32],
) {
    scratch::with(a.cols, |x: &mut [f32]| {
        for (i, x) in x.iter_mut().enumerate() {
            *x = alpha * a.data[i * a.col_stride];
        }
        let (x, n) = (&*x, y.len());
        let out = SharedMut::new(y);
        let units = n.div_ceil(16);
        pool.for_each_chunk(units, (MIN_WORK / 16).div_ceil(x.len()), |range| {
            let cols = range.start * 16..(range.end * 16).min(n);
            // SAFETY: the ranges of the threads are disjoint.
            let y = unsafe { out.part(cols.clone()) };
            if b.col_stride == 1 {
                by_rows(isa, x, b, cols, beta, y)
            } else {
                by_cols(isa, x, b, cols, beta, y)
            }
        });
    });
}

simd_fn! {
    /// Adds the rows of B times their factors, eight rows at a time.
    fn by_rows<S>(x: &[f32], b: MatRef<'_>, cols: Range<usize>, beta: f32, y: &mut [f32]) {
        assert!(b.fits() && x.len() == b.rows && cols.end <= b.cols && y.len() == cols.len());
        for y in y.iter_mut() {
            *y = if beta == 0.0 { 0.0 } else { *y * beta };
        }
        for start in (0..y.len()).step_by(STRIPE) {
            let n = STRIPE.min(y.len() - start);
            let (out, first) = (y.as_mut_ptr().add(start), b.data.as_ptr().add(cols.start + start));
            let mut k = 0;
            while k + 8 <= x.len() {
                add_rows::<S, 8>(n, x.as_ptr().add(k), first.add(k * b.row_stride), b.row_stride, out);
                k += 8;
            }
            while k < x.len() {
                add_rows::<S, 1>(n, x.as_ptr().add(k), first.add(k * b.row_stride), b.row_stride, out);
                k += 1;
            }
        }
    }
}

/// y += the sum of `R` rows of `n` values times their factors.
#[inline(always)]
unsafe fn add_rows<S: Simd, const R: usize>(
    n: usize,
    x: *const f32,
    rows: *const f32,
    stride: usize,
    y: *mut f32,
) {
    // SAFETY: the caller gives `R` factors and rows of `n` values.
    unsafe {
        let mut factors = [S::splat(0.0); R];
        for (r, factor) in factors.iter_mut().enumerate() {
            *factor = S::splat(*x.add(r));
        }
        let mut j = 0;
        while j + S::LANES <= n {
            let mut acc = S::load(y.add(j));
            for (r, &x) in factors.iter().enumerate() {
                acc = S::fma(x, S::load(rows.add(r * stride + j)), acc);
            }
            S::store(y.add(j), acc);
            j += S::LANES;
        }
        if j < n {
            let m = S::first(n - j);
            let mut acc = S::load_m(y.add(j), m);
            for (r, &x) in factors.iter().enumerate() {
                acc = S::fma(x, S::load_m(rows.add(r * stride + j), m), acc);
            }
            S::store_m(y.add(j), acc, m);
        }
    }
}

simd_fn! {
    /// Dot products with the columns of B, four columns at a time.
    fn by_cols<S>(x: &[f32], b: MatRef<'_>, cols: Range<usize>, beta: f32, y: &mut [f32]) {
        assert!(b.fits() && x.len() == b.rows && cols.end <= b.cols && y.len() == cols.len());
        let mut j = 0;
        while j < y.len() {
            let column = b.data.as_ptr().add((cols.start + j) * b.col_stride);
            if j + 4 <= y.len() {
                finish(dots::<S, 4>(x, column, b.col_stride), beta, &mut y[j..j + 4]);
                j += 4;
            } else {
                finish(dots::<S, 1>(x, column, b.col_stride), beta, &mut y[j..j + 1]);
                j += 1;
            }
        }
    }
}

#[inline(always)]
fn finish<const C: usize>(dots: [f32; C], beta: f32, y: &mut [f32]) {
    for (y, dot) in y.iter_mut().zip(dots) {
        *y = if beta == 0.0 { dot } else { beta * *y + dot };
    }
}

/// Dot products of `x` with `C` columns that lie `stride` apart.
#[inline(always)]
unsafe fn dots<S: Simd, const C: usize>(x: &[f32], column: *const f32, stride: usize) -> [f32; C] {
    let mut acc = [[S::splat(0.0); 2]; C];
    let mut k = 0;
    // SAFETY: the caller gives `C` columns of `x.len()` values.
    unsafe {
        while k + 2 * S::LANES <= x.len() {
            for half in 0..2 {
                let at = k + half * S::LANES;
                let v = S::load(x.as_ptr().add(at));
                for (c, acc) in acc.iter_mut().enumerate() {
                    acc[half] = S::fma(v, S::load(column.add(c * stride + at)), acc[half]);
                }
            }
            k += 2 * S::LANES;
        }
        while k < x.len() {
            let m = S::first((x.len() - k).min(S::LANES));
            let v = S::load_m(x.as_ptr().add(k), m);
            for (c, acc) in acc.iter_mut().enumerate() {
                acc[0] = S::fma(v, S::load_m(column.add(c * stride + k), m), acc[0]);
            }
            k += S::LANES;
        }
    }
    let mut sums = [0.0; C];
    for (sum, [a, b]) in sums.iter_mut().zip(acc) {
        *sum = S::reduce_add(S::add(a, b));
    }
    sums
}
