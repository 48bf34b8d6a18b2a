//! Up to eight rows: each line of weights is read once and unpacked in registers.

use super::finish::{Job, TileSums, take_group};
use crate::packed::TILE_N;
use crate::scratch::Line;
use crate::simd::{Simd, simd_fn};
use std::ops::Range;

/// How many bytes ahead of the sums weights are asked for: a page, which the processor's own
/// prefetching does not look beyond. Shorter ways gained nothing, twice as long ones less.
const AHEAD: usize = 4096;

simd_fn! {
    /// All rows of the job for the columns of `panels`.
    pub(super) fn panels<S>(job: &Job<'_>, panels: Range<usize>) {
        for panel in panels {
            match job.m {
                1 => rows::<S, 1, 4>(job, panel),
                2 => rows::<S, 2, 2>(job, panel),
                3 => rows::<S, 3, 2>(job, panel),
                4 => rows::<S, 4, 1>(job, panel),
                5 => rows::<S, 5, 1>(job, panel),
                6 => rows::<S, 6, 1>(job, panel),
                7 => rows::<S, 7, 1>(job, panel),
                _ => rows::<S, 8, 1>(job, panel),
            }
        }
    }
}

/// `M` rows of one panel, with `U` lines in flight.
#[inline(always)]
unsafe fn rows<S: Simd, const M: usize, const U: usize>(job: &Job<'_>, panel: usize) {
    let w = job.w;
    let mut ints = [0i32; 8 * TILE_N];
    let mut floats = [0f32; 8 * TILE_N];
    let group_lines = w.lines_per_panel() / w.n_groups;
    assert!(job.codes.len() >= M * w.k_padded());
    for g in 0..w.n_groups {
        let lines = &w.panel(panel)[g * group_lines..][..group_lines];
        // SAFETY: each row has the codes for all lines of the group.
        let sums = unsafe {
            let a = job.codes.as_ptr().add(g * w.group_padded);
            match w.bits {
                4 => dots4::<S, M, U>(lines, a, w.k_padded()),
                _ => dots8::<S, M, U>(lines, a, w.k_padded()),
            }
        };
        for (row, acc) in ints.chunks_exact_mut(TILE_N).zip(sums) {
            // SAFETY: the chunk holds 16 values.
            unsafe { S::store_acc(row.as_mut_ptr(), acc) };
        }
        let (ints, floats) = (&ints[..M * TILE_N], &mut floats[..]);
        let mut t = TileSums { row: 0, rows: M, panel, panels: 1, ints, ld: TILE_N, floats };
        // SAFETY: the buffers hold the tile.
        unsafe { take_group::<S>(job, &mut t, g) };
    }
}

// The steps below are functions and not closures, which are not sure to be inlined where the
// instruction set is.

/// Sums over lines of 4-bit codes. High nibbles are summed in place, 16 times too large.
#[inline(always)]
unsafe fn dots4<S: Simd, const M: usize, const U: usize>(
    lines: &[Line],
    a: *const i8,
    stride: usize,
) -> [S::Acc; M] {
    let mut low = [[S::zero(); M]; U];
    let mut high = [[S::zero(); M]; U];
    let whole = lines.len() / U * U;
    // SAFETY: the caller's rows hold eight codes a line.
    unsafe {
        for first in (0..whole).step_by(U) {
            for slot in 0..U {
                let line = first + slot;
                step4::<S, M>(
                    &lines[line],
                    a.add(8 * line),
                    stride,
                    &mut low[slot],
                    &mut high[slot],
                );
            }
        }
        for (line, w) in lines.iter().enumerate().skip(whole) {
            step4::<S, M>(w, a.add(8 * line), stride, &mut low[0], &mut high[0]);
        }
    }
    let (mut low, high) = (fold::<S, M, U>(low), fold::<S, M, U>(high));
    for (low, high) in low.iter_mut().zip(high) {
        *low = S::add_acc(*low, S::sixteenth(high));
    }
    low
}

#[inline(always)]
unsafe fn step4<S: Simd, const M: usize>(
    line: &Line,
    a: *const i8,
    stride: usize,
    low: &mut [S::Acc; M],
    high: &mut [S::Acc; M],
) {
    // SAFETY: the caller's rows hold eight codes at `a`.
    unsafe {
        S::prefetch(line.0.as_ptr().wrapping_add(AHEAD));
        let w = S::load_w(line.0.as_ptr());
        let (l, h) = (S::low(w), S::high_in_place(w));
        for (r, (low, high)) in low.iter_mut().zip(high).enumerate() {
            let a = a.add(r * stride);
            *low = S::dot(*low, l, S::load_a(a));
            *high = S::dot(*high, h, S::load_a(a.add(4)));
        }
    }
}

/// Sums over lines of 8-bit codes.
#[inline(always)]
unsafe fn dots8<S: Simd, const M: usize, const U: usize>(
    lines: &[Line],
    a: *const i8,
    stride: usize,
) -> [S::Acc; M] {
    let mut acc = [[S::zero(); M]; U];
    let whole = lines.len() / U * U;
    // SAFETY: the caller's rows hold four codes a line.
    unsafe {
        for first in (0..whole).step_by(U) {
            for (slot, acc) in acc.iter_mut().enumerate() {
                let line = first + slot;
                step8::<S, M>(&lines[line], a.add(4 * line), stride, acc);
            }
        }
        for (line, w) in lines.iter().enumerate().skip(whole) {
            step8::<S, M>(w, a.add(4 * line), stride, &mut acc[0]);
        }
    }
    fold::<S, M, U>(acc)
}

#[inline(always)]
unsafe fn step8<S: Simd, const M: usize>(
    line: &Line,
    a: *const i8,
    stride: usize,
    acc: &mut [S::Acc; M],
) {
    // SAFETY: the caller's rows hold four codes at `a`.
    unsafe {
        S::prefetch(line.0.as_ptr().wrapping_add(AHEAD));
        let w = S::load_w(line.0.as_ptr());
        for (r, acc) in acc.iter_mut().enumerate() {
            *acc = S::dot(*acc, w, S::load_a(a.add(r * stride)));
        }
    }
}

#[inline(always)]
fn fold<S: Simd, const M: usize, const U: usize>(acc: [[S::Acc; M]; U]) -> [S::Acc; M] {
    let mut total = acc[0];
    for part in &acc[1..] {
        for (total, &part) in total.iter_mut().zip(part) {
            *total = S::add_acc(*total, part);
        }
    }
    total
}
