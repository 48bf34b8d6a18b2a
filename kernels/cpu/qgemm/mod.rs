//! Integer matrix products: int8 or int4 activation codes times packed weights, with exact i32
//! sums.
//!
//! Weights are stored with an offset that makes them unsigned; the kernels sum unsigned times
//! signed bytes and take offset · Σ_k a\[m, k\] off again, so each row of A needs one sum a group.

#[cfg(target_arch = "x86_64")]
mod amx;
mod finish;
mod gemv;
mod rows;
mod tile;

use crate::Isa;
use crate::packed::{PackedWeights, TILE_N};
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
pub(crate) use finish::{Job, Target};
use rows::with_rows;

/// The largest depth whose partial sums stay inside 32 bits.
pub const MAX_K: usize = 131_072;
/// Up to this many rows the weights are unpacked in registers, row by row of the sums.
const GEMV_ROWS: usize = 8;
/// Weight bytes a thread should have at least to read.
const MIN_BYTES: usize = 24 * 1024;

/// out\[m, n\] = a_scale\[m] · w_scale\[n] · Σ_k a\[m, k\]·w\[k, n\] (+ bias\[n\]) (+ out).
///
/// `a_codes` is row-major `[m, K]` with m = `a_scales.len()`; `out` is `[m, N]`. The sums are
/// exact; each is rounded to f32 once, then scaled by the weight's scale and the row's. With
/// grouped scales, each group's sum is exact, and the scaled sums are added in f32. With
/// `accumulate`, the product is added to `out`.
///
/// # Panics
/// When the lengths disagree or K is above [`MAX_K`].
#[allow(clippy::too_many_arguments)]
pub fn qgemm(
    pool: &ThreadPool,
    isa: Isa,
    a_codes: &[i8],
    a_scales: &[f32],
    w: &PackedWeights,
    bias: Option<&[f32]>,
    out: &mut [f32],
    accumulate: bool,
) {
    assert_eq!(out.len(), a_scales.len() * w.n, "qgemm output length");
    let out = SharedMut::new(out);
    let target = Target::F32 { a_scales, bias, out, accumulate, planes: false };
    product(pool, isa, a_codes, a_scales.len(), w, target);
}

/// The sums of [`qgemm`] alone, Σ_k a\[m, k\]·w\[k, n\], into `out` `[m, N]`.
///
/// # Panics
/// As [`qgemm`].
pub fn qgemm_i32(
    pool: &ThreadPool,
    isa: Isa,
    a_codes: &[i8],
    m: usize,
    w: &PackedWeights,
    out: &mut [i32],
) {
    assert_eq!(out.len(), m * w.n, "qgemm output length");
    out.fill(0);
    product(pool, isa, a_codes, m, w, Target::I32(SharedMut::new(out)));
}

/// Runs the product of `m` rows of codes with the weights into `target`.
pub(crate) fn product(
    pool: &ThreadPool,
    isa: Isa,
    a_codes: &[i8],
    m: usize,
    w: &PackedWeights,
    target: Target<'_>,
) {
    assert_eq!(a_codes.len(), m * w.k, "qgemm activation length");
    assert!(w.k <= MAX_K, "qgemm sums at most {MAX_K} products");
    target.check(w.n);
    if m == 0 || w.n == 0 {
        return;
    }
    with_rows(pool, isa, a_codes, m, w, |codes, sums| {
        let job = Job { w, codes, sums, m, target };
        if m <= GEMV_ROWS { by_panels(pool, isa, &job) } else { by_tiles(pool, isa, &job) }
    });
}

fn by_panels(pool: &ThreadPool, isa: Isa, job: &Job<'_>) {
    let panel_bytes = (job.w.lines_per_panel() * 64).max(1);
    let min_panels = MIN_BYTES.div_ceil(panel_bytes * job.m);
    pool.for_each_chunk(job.w.n_panels(), min_panels, |panels| gemv::panels(isa, job, panels));
}

/// Splits the output into tiles of up to four panels by `height` rows.
fn by_tiles(pool: &ThreadPool, isa: Isa, job: &Job<'_>) {
    let n_blocks = job.w.n_panels().div_ceil(tile::PANELS);
    let height = tile_height(job.m, n_blocks, pool.n_threads());
    let n_strips = job.m.div_ceil(height);
    pool.for_each_dynamic(n_blocks * n_strips, 1, |tasks| {
        for task in tasks {
            let (strip, block) = (task / n_blocks, task % n_blocks);
            let rows = strip * height..((strip + 1) * height).min(job.m);
            let first = block * tile::PANELS;
            tile::tile(isa, job, rows, first..(first + tile::PANELS).min(job.w.n_panels()));
        }
    });
}

/// Rows of a task: all of them when the panels alone keep the threads busy.
fn tile_height(m: usize, n_blocks: usize, n_threads: usize) -> usize {
    let strips = (8 * n_threads).div_ceil(n_blocks);
    if n_threads == 1 || strips <= 1 { m } else { m.div_ceil(strips).next_multiple_of(96) }
}

const _: () = assert!(TILE_N == 16);
