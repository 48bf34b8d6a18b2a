//! Up to eight rows: each line of weights is read once and unpacked in registers.

use super::finish::{Job, TileSums, take_group};
use crate::packed::TILE_N;
use crate::scratch::Line;
use crate::simd::{Simd, simd_fn};
use std::ops::Range;

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

/// Sums over lines of 4-bit codes. High nibbles are summed in place, 16 times too large.
#[inline(always)]
unsafe fn dots4<S: Simd, const M: usize, const U: usize>(
    lines: &[Line],
    a: *const i8,
    stride: usize,
) -> [S::Acc; M] {
    let mut low = [[S::zero(); M]; U];
    let mut high = [[S::zero(); M]; U];
    let mut step = |slot: usize, line: usize| {
        // SAFETY: the caller's rows hold eight codes a line.
        unsafe {
            let w = S::load_w(lines.as_ptr().add(line).cast());
            let (l, h) = (S::low(w), S::high_in_place(w));
            for r in 0..M {
                let a = a.add(r * stride + 8 * line);
                low[slot][r] = S::dot(low[slot][r], l, S::load_a(a));
                high[slot][r] = S::dot(high[slot][r], h, S::load_a(a.add(4)));
            }
        }
    };
    let whole = lines.len() / U * U;
    for line in (0..whole).step_by(U) {
        for slot in 0..U {
            step(slot, line + slot);
        }
    }
    for line in whole..lines.len() {
        step(0, line);
    }
    let (low, high) = (fold::<S, M, U>(low), fold::<S, M, U>(high));
    std::array::from_fn(|r| S::add_acc(low[r], S::sixteenth(high[r])))
}

/// Sums over lines of 8-bit codes.
#[inline(always)]
unsafe fn dots8<S: Simd, const M: usize, const U: usize>(
    lines: &[Line],
    a: *const i8,
    stride: usize,
) -> [S::Acc; M] {
    let mut acc = [[S::zero(); M]; U];
    let mut step = |slot: usize, line: usize| {
        // SAFETY: the caller's rows hold four codes a line.
        unsafe {
            let w = S::load_w(lines.as_ptr().add(line).cast());
            for r in 0..M {
                let a = S::load_a(a.add(r * stride + 4 * line));
                acc[slot][r] = S::dot(acc[slot][r], w, a);
            }
        }
    };
    let whole = lines.len() / U * U;
    for line in (0..whole).step_by(U) {
        for slot in 0..U {
            step(slot, line + slot);
        }
    }
    for line in whole..lines.len() {
        step(0, line);
    }
    fold::<S, M, U>(acc)
}

#[inline(always)]
fn fold<S: Simd, const M: usize, const U: usize>(acc: [[S::Acc; M]; U]) -> [S::Acc; M] {
    let mut total = acc[0];
    for part in &acc[1..] {
        for r in 0..M {
            total[r] = S::add_acc(total[r], part[r]);
        }
    }
    total
}
