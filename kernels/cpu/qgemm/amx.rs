//! Int8 tile products of AMX, for blocks of 32 rows by 32 columns.

use super::finish::{Job, TileSums, take_group};
use super::tile::Bytes;
use crate::Isa;
use crate::amx::Tiles;
use crate::packed::TILE_N;
use crate::simd::simd_fn;
use std::arch::asm;
use std::ops::Range;

/// Rows of a block: two tiles.
const ROWS: usize = 32;
/// Columns of a block: two tiles.
const COLS: usize = 2 * TILE_N;
/// Rows of K in one tile step.
const DEPTH: usize = 64;

/// Computes the whole blocks of 32 rows in `rows` for the unpacked panels from `panel`; returns
/// the rows left.
pub(super) fn rows(job: &Job<'_>, rows: Range<usize>, panel: usize, w: Bytes<'_>) -> Range<usize> {
    let whole = rows.len() / ROWS * ROWS;
    if whole == 0 || !job.w.group_padded.is_multiple_of(DEPTH) || job.w.k == 0 {
        return rows;
    }
    // SAFETY: the caller checked that AMX is permitted.
    let _tiles = unsafe { Tiles::configure() };
    for row in (rows.start..rows.start + whole).step_by(ROWS) {
        for first in (0..w.panels).step_by(2) {
            block(Isa::Avx512, job, row, panel, w, first);
        }
    }
    rows.start + whole..rows.end
}

simd_fn! {
    /// 32 rows by the unpacked panels `first` and, where there is one, the next.
    fn block<S>(job: &Job<'_>, row: usize, panel: usize, w: Bytes<'_>, first: usize) {
        let mut ints = [0i32; ROWS * COLS];
        let mut floats = [0f32; ROWS * COLS];
        let (group, stride) = (job.w.group_padded, job.w.k_padded());
        let panels = (w.panels - first).min(2);
        assert!(job.codes.len() >= (row + ROWS) * stride);
        assert!(w.data.len() >= stride / 4 * w.panels * 64);
        for g in 0..job.w.n_groups {
            let a = job.codes.as_ptr().add(row * stride + g * group);
            let b = w.data.as_ptr().add((g * group / 4 * w.panels + first) * 64);
            let second = b.add((panels - 1) * 64);
            sums(group / DEPTH, a, stride, [b, second], w.panels * 64, &mut ints);
            let (ints, floats) = (&ints[..], &mut floats[..]);
            let panel = panel + first;
            let mut t = TileSums { row, rows: ROWS, panel, panels, ints, ld: COLS, floats };
            take_group::<S>(job, &mut t, g);
        }
    }
}

/// Sums of 32 rows of `a` by two tiles of columns over `steps` times 64 rows of K.
///
/// # Safety
/// The tiles are configured; A and B hold `steps` steps, one at least.
#[inline(always)]
unsafe fn sums(
    steps: usize,
    a: *const i8,
    a_stride: usize,
    b: [*const u8; 2],
    b_stride: usize,
    ints: &mut [i32; ROWS * COLS],
) {
    // SAFETY: the caller's promise; the four results fill `ints`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {a_stride}]",
            "tileloadd tmm6, [{b0} + {b_stride}]",
            "tileloadd tmm7, [{b1} + {b_stride}]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {a_stride}]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, {b_step}",
            "add {b1}, {b_step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {c_stride}], tmm0",
            "tilestored [{c} + {c_stride} + 64], tmm1",
            "tilestored [{c2} + {c_stride}], tmm2",
            "tilestored [{c2} + {c_stride} + 64], tmm3",
            a0 = inout(reg) a => _,
            a1 = inout(reg) a.add(16 * a_stride) => _,
            b0 = inout(reg) b[0] => _,
            b1 = inout(reg) b[1] => _,
            steps = inout(reg) steps => _,
            a_stride = in(reg) a_stride,
            b_stride = in(reg) b_stride,
            b_step = in(reg) b_stride * (DEPTH / 4),
            c = in(reg) ints.as_mut_ptr(),
            c2 = in(reg) ints.as_mut_ptr().add(16 * COLS),
            c_stride = in(reg) COLS * 4,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}
