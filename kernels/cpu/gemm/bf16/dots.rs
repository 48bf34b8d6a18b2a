//! Blocks of sums by the dot products of AVX512-BF16, for machines without the tiles.

use super::{Job, PANEL_STEP, SIDE, Sums, TILE, for_each_block};
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of A whose sums are in registers at a time, by two vectors of columns.
const ROWS: usize = 8;

/// Multiplies the packed panels `rows` of A by the panels `cols` of B.
pub(super) fn multiply(job: &Job<'_>, a: &[u32], rows: Range<usize>, cols: Range<usize>) {
    let mut block = Sums([0.0; SIDE * SIDE]);
    for_each_block(job, a, rows, cols, |a, b, place| {
        for first in (0..SIDE).step_by(ROWS) {
            // SAFETY: the job's unit says that the machine has AVX512-BF16; the panels hold the
            // steps.
            unsafe { sums(job.steps(), a.as_ptr(), b.as_ptr(), first, &mut block) };
        }
        job.target.write(&block, place);
    });
}

/// The sums of the rows `first..first + ROWS` of a panel of A by a panel of B.
///
/// # Safety
/// The machine has AVX512-BF16; A and B hold `steps` steps.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn sums(steps: usize, a: *const u32, b: *const u32, first: usize, block: &mut Sums) {
    let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        for step in 0..steps {
            let a = a.add(step * PANEL_STEP + first * 16);
            let b = b.add(step * PANEL_STEP);
            for pair in 0..16 {
                let load = |tile: usize| _mm512_loadu_si512(b.add(tile * TILE + pair * 16).cast());
                let (b0, b1) = (load(0), load(1));
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(a.add(r * 16 + pair).read().cast_signed());
                    acc[0] = dot(acc[0], x, b0);
                    acc[1] = dot(acc[1], x, b1);
                }
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            let to = block.0.as_mut_ptr().add((first + r) * SIDE);
            _mm512_storeu_ps(to, acc[0]);
            _mm512_storeu_ps(to.add(16), acc[1]);
        }
    }
}

/// acc + the products of the two bfloat16 numbers in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot(acc: __m512, x: __m512i, y: __m512i) -> __m512 {
    // SAFETY: both are 512 bits, of which any make bfloat16 numbers.
    let as_bf16 = |v: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(v) };
    _mm512_dpbf16_ps(acc, as_bf16(x), as_bf16(y))
}
