//! Many rows: weights are unpacked to bytes once a tile and kept in cache while the rows pass.

use super::finish::{Job, TileSums, take_group};
use crate::packed::TILE_N;
use crate::simd::{Simd, simd_fn};
use crate::{Isa, scratch};
use std::ops::Range;

/// Panels of a tile.
pub(super) const PANELS: usize = 4;
/// Rows of the largest register tile.
const MAX_ROWS: usize = 6;

/// Unpacked bytes of some panels, `[padded K / 4, panels, 64]`.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) data: &'a [u8],
    pub(super) panels: usize,
}

/// Computes the output rows `rows` for the columns of at most [`PANELS`] panels.
pub(super) fn tile(isa: Isa, job: &Job<'_>, rows: Range<usize>, panels: Range<usize>) {
    scratch::with(job.w.k_padded() / 4 * panels.len() * 64, |data: &mut [u8]| {
        unpack(isa, job, panels.clone(), data);
        let bytes = Bytes { data, panels: panels.len() };
        let left = amx_rows(isa, job, rows, panels.start, bytes);
        vector_rows(isa, job, left, panels.start, bytes);
    });
}

/// Runs what AMX can of `rows`; returns the rows left.
#[cfg(target_arch = "x86_64")]
fn amx_rows(
    isa: Isa,
    job: &Job<'_>,
    rows: Range<usize>,
    panel: usize,
    w: Bytes<'_>,
) -> Range<usize> {
    if isa.clamped() == Isa::Amx { super::amx::rows(job, rows, panel, w) } else { rows }
}

#[cfg(not(target_arch = "x86_64"))]
fn amx_rows(_: Isa, _: &Job<'_>, rows: Range<usize>, _: usize, _: Bytes<'_>) -> Range<usize> {
    rows
}

simd_fn! {
    /// Writes the panels' codes to `data`, one unsigned byte each.
    fn unpack<S>(job: &Job<'_>, panels: Range<usize>, data: &mut [u8]) {
        let width = panels.len() * 64;
        for (i, panel) in panels.enumerate() {
            let lines = job.w.panel(panel);
            let per_line = if job.w.bits == 4 { 2 } else { 1 };
            assert!(data.len() >= lines.len() * per_line * width);
            for (l, line) in lines.iter().enumerate() {
                let w = S::load_w(line.0.as_ptr());
                let to = data.as_mut_ptr().add(l * per_line * width + i * 64);
                if job.w.bits == 4 {
                    S::store_w(to, S::low(w));
                    S::store_w(to.add(width), S::high(w));
                } else {
                    S::store_w(to, w);
                }
            }
        }
    }
}

simd_fn! {
    fn vector_rows<S>(job: &Job<'_>, rows: Range<usize>, panel: usize, w: Bytes<'_>) {
        assert!(job.codes.len() >= rows.end * job.w.k_padded());
        assert!(w.data.len() >= job.w.k_padded() / 4 * w.panels * 64);
        match w.panels {
            4 if S::TILE_VECTORS > 2 => strips::<S, 4>(job, rows, panel, w, 0),
            3 if S::TILE_VECTORS > 2 => strips::<S, 3>(job, rows, panel, w, 0),
            2 if S::TILE_VECTORS > 2 => strips::<S, 2>(job, rows, panel, w, 0),
            n => {
                for i in 0..n {
                    strips::<S, 1>(job, rows.clone(), panel + i, w, i);
                }
            }
        }
    }
}

/// The rows in strips of six, four, two and one, for `V` panels from `panel`, which is number
/// `offset` of the unpacked ones.
#[inline(always)]
unsafe fn strips<S: Simd, const V: usize>(
    job: &Job<'_>,
    rows: Range<usize>,
    panel: usize,
    w: Bytes<'_>,
    offset: usize,
) {
    let mut row = rows.start;
    // SAFETY: the rows and panels exist, as checked by the caller.
    unsafe {
        while row + 6 <= rows.end {
            strip::<S, 6, V>(job, row, panel, w, offset);
            row += 6;
        }
        if row + 4 <= rows.end {
            strip::<S, 4, V>(job, row, panel, w, offset);
            row += 4;
        }
        if row + 2 <= rows.end {
            strip::<S, 2, V>(job, row, panel, w, offset);
            row += 2;
        }
        if row < rows.end {
            strip::<S, 1, V>(job, row, panel, w, offset);
        }
    }
}

#[inline(always)]
unsafe fn strip<S: Simd, const M: usize, const V: usize>(
    job: &Job<'_>,
    row: usize,
    panel: usize,
    w: Bytes<'_>,
    offset: usize,
) {
    let mut ints = [0i32; MAX_ROWS * PANELS * TILE_N];
    let mut floats = [0f32; MAX_ROWS * PANELS * TILE_N];
    let (group, stride) = (job.w.group_padded, job.w.k_padded());
    for g in 0..job.w.n_groups {
        // SAFETY: the caller's promise; the buffer holds M rows of V panels.
        unsafe {
            let a = job.codes.as_ptr().add(row * stride + g * group);
            let line = w.data.as_ptr().add((g * group / 4 * w.panels + offset) * 64);
            let sums = micro::<S, M, V>(group / 4, a, stride, line, w.panels * 64);
            for (r, row) in sums.into_iter().enumerate() {
                for (v, acc) in row.into_iter().enumerate() {
                    S::store_acc(ints.as_mut_ptr().add((r * V + v) * TILE_N), acc);
                }
            }
            let ld = V * TILE_N;
            let (ints, floats) = (&ints[..M * ld], &mut floats[..]);
            let mut t = TileSums { row, rows: M, panel, panels: V, ints, ld, floats };
            take_group::<S>(job, &mut t, g);
        }
    }
}

/// Sums of `M` rows by `V` panels over `steps` times four rows of K.
#[inline(always)]
unsafe fn micro<S: Simd, const M: usize, const V: usize>(
    steps: usize,
    a: *const i8,
    a_stride: usize,
    w: *const u8,
    w_stride: usize,
) -> [[S::Acc; V]; M] {
    let mut acc = [[S::zero(); V]; M];
    for step in 0..steps {
        // SAFETY: the caller's rows and lines hold `steps` steps.
        unsafe {
            let line = w.add(step * w_stride);
            let mut w = [S::load_w(line); V];
            for (v, w) in w.iter_mut().enumerate().skip(1) {
                *w = S::load_w(line.add(64 * v));
            }
            let a = a.add(4 * step);
            for (r, acc) in acc.iter_mut().enumerate() {
                let a = S::load_a(a.add(r * a_stride));
                for v in 0..V {
                    acc[v] = S::dot(acc[v], w[v], a);
                }
            }
        }
    }
    acc
}
