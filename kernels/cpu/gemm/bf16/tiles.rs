//! Blocks of sums by AMX-BF16 tiles.

use super::{Job, PANEL_STEP, SIDE, Sums};
use crate::amx::Tiles;
use std::arch::asm;
use std::ops::Range;

/// Multiplies the packed panels `rows` of A by the panels `cols` of B.
pub(super) fn multiply(job: &Job<'_>, a: &[u32], rows: Range<usize>, cols: Range<usize>) {
    let panel = job.steps() * PANEL_STEP;
    let mut block = Sums([0.0; SIDE * SIDE]);
    // SAFETY: the job's unit says that the machine has the tiles.
    let _tiles = unsafe { Tiles::configure() };
    for col in cols {
        let b = &job.b[col * panel..][..panel];
        for (row, a) in rows.clone().zip(a.chunks_exact(panel)) {
            // SAFETY: the tiles are configured, both panels hold the steps, at least one.
            unsafe { sums(job.steps(), a.as_ptr(), b.as_ptr(), &mut block) };
            job.target.write(&block, row, col);
        }
    }
}

/// The sums of one panel of A by one panel of B.
///
/// # Safety
/// The tiles are configured; A and B hold `steps` steps, one at least.
#[inline(always)]
unsafe fn sums(steps: usize, a: *const u32, b: *const u32, block: &mut Sums) {
    // SAFETY: the caller's promise; the four results fill `block`.
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
            c = in(reg) block.0.as_mut_ptr(),
            c2 = in(reg) block.0.as_mut_ptr().add(16 * SIDE),
            c_row = in(reg) SIDE * 4,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

const _: () = assert!(PANEL_STEP * 4 == 2048);
