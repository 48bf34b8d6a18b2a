//! Blocks of sums by AMX-BF16 tiles.

use super::finish::Place;
use super::{Job, PANEL_STEP, SIDE, Sums, for_each_block};
use crate::amx::Tiles;
use std::arch::asm;
use std::ops::Range;

/// Multiplies the packed panels `rows` of A by the panels `cols` of B.
pub(super) fn multiply(job: &Job<'_>, a: &[u32], rows: Range<usize>, cols: Range<usize>) {
    let (steps, target) = (job.steps(), &job.target);
    let mut block = Sums([0.0; SIDE * SIDE]);
    // SAFETY: the job's unit says that the machine has the tiles.
    let _tiles = unsafe { Tiles::configure() };
    for_each_block(job, a, rows, cols, |a, b, place| {
        prefetch(place, target.stride);
        let (a, b) = (a.as_ptr(), b.as_ptr());
        // SAFETY: the tiles are configured, both panels hold the steps, at least one; the whole
        // block at the place, and the local one, can be written.
        unsafe {
            if target.is_plain() && place.is_whole() {
                return sums(steps, a, b, place.start, target.stride);
            }
            sums(steps, a, b, block.0.as_mut_ptr(), SIDE);
        }
        target.write(&block, place);
    });
}

/// Asks for the lines of a block that is to be written, so that they come while it is summed.
#[inline(always)]
fn prefetch(place: Place, stride: usize) {
    for i in 0..place.rows {
        let row = place.start.wrapping_add(i * stride);
        // SAFETY: a prefetch of any address is allowed, and machines with AMX have this one.
        unsafe {
            asm!(
                "prefetchw [{row}]",
                "prefetchw [{row} + 64]",
                row = in(reg) row,
                options(nostack, readonly, preserves_flags)
            );
        }
    }
}

/// The sums of one panel of A by one panel of B, to 32 rows at `c` that lie `stride` apart.
///
/// # Safety
/// The tiles are configured; A and B hold `steps` steps, one at least; C can be written.
#[inline(always)]
unsafe fn sums(steps: usize, a: *const u32, b: *const u32, c: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm6, [{b} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {c_row}], tmm0",
            "tilestored [{c} + {c_row} + 64], tmm1",
            "tilestored [{c2} + {c_row}], tmm2",
            "tilestored [{c2} + {c_row} + 64], tmm3",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            steps = inout(reg) steps => _,
            row = in(reg) 64usize,
            c = in(reg) c,
            c2 = in(reg) c.add(16 * stride),
            c_row = in(reg) stride * 4,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

const _: () = assert!(PANEL_STEP * 4 == 2048);
