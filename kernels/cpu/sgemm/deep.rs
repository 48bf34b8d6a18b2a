//! Products that are little but depth: the threads divide the depth, and their sums are added.

use super::pack::PANEL;
use super::{Product, tile};
use crate::mat::{MatMut, MatRef};
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::{Isa, scratch};
use std::ops::Range;

/// Elements of C up to which this is tried.
const MAX_RESULT: usize = 128 * 128;
/// Depth that a thread should have at least.
const MIN_DEPTH: usize = 1024;

/// Into how many parts the depth of an `[m, k]` by `[k, n]` product is best divided.
pub(super) fn n_parts(m: usize, k: usize, n: usize, n_threads: usize) -> usize {
    if m * n > MAX_RESULT { 1 } else { (k / MIN_DEPTH).clamp(1, n_threads) }
}

/// c = alpha·a·b + beta·c with the depth in `parts` parts.
pub(super) fn gemm(pool: &ThreadPool, isa: Isa, p: Product<'_>, c: MatMut<'_>, parts: usize) {
    let (m, k, n) = (c.rows, p.a.cols, c.cols);
    scratch::with(parts * m * n, |sums: &mut [f32]| {
        let shared = SharedMut::new(sums);
        pool.for_each_dynamic(parts, 1, |range| {
            for part in range {
                let p = p.part(k * part / parts..k * (part + 1) / parts);
                // SAFETY: each part has its own sums.
                let sums = unsafe { shared.part(part * m * n..(part + 1) * m * n) };
                for first in (0..n).step_by(PANEL) {
                    let cols = first..(first + PANEL).min(n);
                    tile(isa, p, 0..m, cols, sums[first..].as_mut_ptr(), n);
                }
            }
        });
        for i in 0..m {
            let row = &mut c.data[i * c.row_stride..][..n];
            for (j, y) in row.iter_mut().enumerate() {
                let sum: f32 = sums[i * n + j..].iter().step_by(m * n).sum();
                *y = p.alpha * sum + if p.beta == 0.0 { 0.0 } else { p.beta * *y };
            }
        }
    });
}

impl Product<'_> {
    /// The product over a part of the depth, without factors.
    fn part(self, depth: Range<usize>) -> Self {
        let (a, b) = (self.a, self.b);
        Self {
            alpha: 1.0,
            a: MatRef { data: &a.data[depth.start * a.col_stride..], cols: depth.len(), ..a },
            b: MatRef { data: &b.data[depth.start * b.row_stride..], rows: depth.len(), ..b },
            beta: 0.0,
        }
    }
}
