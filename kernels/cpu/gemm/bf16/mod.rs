//! Products of factors rounded to bfloat16, by AMX tiles or AVX-512 dot products.
//!
//! Both factors are packed into panels of [`SIDE`] rows of A or columns of B, cut into tiles along
//! the depth; a block of [`SIDE`] x [`SIDE`] sums is four tiles. B is packed once for all threads;
//! each strip of rows of A by the thread that works on it, so that it lies in that core's cache.

mod dots;
mod finish;
mod grid;
mod pack;
#[cfg(test)]
mod tests;
mod tiles;

use crate::mat::{MatMut, MatRef};
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::{Isa, amx, scratch};
use finish::{Place, Target};
use grid::Grid;
use pack::{Form, pack};
use std::arch::x86_64::__cpuid;
use std::ops::Range;
use std::sync::OnceLock;

/// Rows of a panel of A and columns of a panel of B.
const SIDE: usize = 32;
/// Depth of a tile.
const STEP: usize = 32;
/// Pairs of bfloat16 numbers in a tile: 16 rows of 64 bytes.
const TILE: usize = 256;
/// Pairs in one step of a panel: two tiles.
const PANEL_STEP: usize = 2 * TILE;
/// Largest depth of a panel, which bounds the memory that is packed at once.
const MAX_DEPTH: usize = 2048;
/// Pairs of B that are packed at once: 8 MB.
const MAX_PACKED: usize = 1 << 21;
/// Pairs of B that all rows of a strip pass before the next ones: half a MB, which stays in the
/// second cache beside the strip.
const GROUP: usize = 1 << 17;

/// Sums of one block, row-major.
#[repr(C, align(64))]
struct Sums([f32; SIDE * SIDE]);

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// AMX-BF16.
    Tiles,
    /// AVX512-BF16, where its dot products take no longer than f32 multiply-adds.
    Dots,
}

impl Unit {
    /// The best one at this level, if one is faster than f32 vectors.
    pub(super) fn of(isa: Isa) -> Option<Self> {
        let isa = isa.clamped();
        if isa < Isa::Avx512 || !can_round() {
            return None;
        }
        match isa == Isa::Amx && amx::has_bf16() {
            true => Some(Self::Tiles),
            false => has_fast_dots().then_some(Self::Dots),
        }
    }
}

/// Whether the machine has AVX512-BF16, which packing needs; every machine with AMX-BF16 has it.
fn can_round() -> bool {
    is_x86_feature_detected!("avx512bf16")
}

/// Whether `vdpbf16ps` is issued as often as an f32 multiply-add, which does half its work: so on
/// AMD's cores. Intel's take it apart, and on Sapphire Rapids it came to 80 GFLOP/s a core where
/// f32 vectors reach 120.
fn has_fast_dots() -> bool {
    static FAST: OnceLock<bool> = OnceLock::new();
    *FAST.get_or_init(|| {
        let id = __cpuid(0);
        [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    })
}

/// One part of the product: some depth, some columns, all rows.
struct Job<'a> {
    unit: Unit,
    a: MatRef<'a>,
    depth: Range<usize>,
    /// The panels of B.
    b: &'a [u32],
    target: Target<'a>,
}

impl Job<'_> {
    fn steps(&self) -> usize {
        self.depth.len().div_ceil(STEP)
    }
}

/// c = alpha · a · b + beta · c; `a` has at least one column.
pub(super) fn product(
    pool: &ThreadPool,
    unit: Unit,
    alpha: f32,
    a: MatRef<'_>,
    b: MatRef<'_>,
    beta: f32,
    c: MatMut<'_>,
) {
    assert!(a.rows == c.rows && a.cols == b.rows && b.cols == c.cols, "gemm shapes disagree");
    assert!(a.fits() && b.fits() && c.fits(), "a matrix view reaches outside its slice");
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    let (k, n, stride, n_rows) = (a.cols, c.cols, c.row_stride, c.rows);
    let out = SharedMut::new(c.data);
    let depth = k.div_ceil(k.div_ceil(MAX_DEPTH)).next_multiple_of(STEP);
    let width = (MAX_PACKED / (depth / 2)).max(SIDE) / SIDE * SIDE;
    for first in (0..n).step_by(width) {
        let cols = first..(first + width).min(n);
        for start in (0..k).step_by(depth) {
            let depth = start..(start + depth).min(k);
            let beta = if start == 0 { beta } else { 1.0 };
            let target = Target { out, stride, n_rows, first, n_cols: cols.len(), alpha, beta };
            part(pool, unit, a, b.t(), cols.clone(), depth, target);
        }
    }
}

/// Packs the columns `cols` of B (the rows of its transpose `bt`) and multiplies.
fn part(
    pool: &ThreadPool,
    unit: Unit,
    a: MatRef<'_>,
    bt: MatRef<'_>,
    cols: Range<usize>,
    depth: Range<usize>,
    target: Target<'_>,
) {
    let n_panels = cols.len().div_ceil(SIDE);
    let panel = depth.len().div_ceil(STEP) * PANEL_STEP;
    scratch::with(n_panels * panel, |packed: &mut [u32]| {
        let shared = SharedMut::new(packed);
        pool.for_each_chunk(n_panels, 1, |panels| {
            let rows =
                cols.start + panels.start * SIDE..(cols.start + panels.end * SIDE).min(cols.end);
            // SAFETY: the threads pack disjoint panels.
            let out = unsafe { shared.part(panels.start * panel..panels.end * panel) };
            // SAFETY: the unit says that the machine has AVX512-BF16; the view was checked.
            unsafe { pack(bt, rows, depth.clone(), Form::Right, out) };
        });
        let job = Job { unit, a, depth: depth.clone(), b: packed, target };
        let grid = Grid::new(a.rows.div_ceil(SIDE), n_panels, panel, pool.n_threads());
        pool.for_each_dynamic(grid.n_tasks(), 1, |tasks| {
            for (rows, cols) in tasks.map(|task| grid.task(task)) {
                strip(&job, rows, cols);
            }
        });
    });
}

/// Packs the panels `rows` of A and multiplies them by the panels `cols` of B.
fn strip(job: &Job<'_>, rows: Range<usize>, cols: Range<usize>) {
    let panel = job.steps() * PANEL_STEP;
    scratch::with(rows.len() * panel, |packed: &mut [u32]| {
        let a_rows = rows.start * SIDE..(rows.end * SIDE).min(job.a.rows);
        // SAFETY: the unit says that the machine has AVX512-BF16; the view was checked.
        unsafe { pack(job.a, a_rows, job.depth.clone(), Form::Left, packed) };
        match job.unit {
            Unit::Tiles => tiles::multiply(job, packed, rows, cols),
            Unit::Dots => dots::multiply(job, packed, rows, cols),
        }
    });
}

/// Calls `f` on each panel of A, each panel of B and the place of their block: `a` holds the
/// panels `rows`. Runs along the rows of C as far as B stays in the cache, since the lines and
/// pages of C are what costs most.
fn for_each_block(
    job: &Job<'_>,
    a: &[u32],
    rows: Range<usize>,
    cols: Range<usize>,
    mut f: impl FnMut(&[u32], &[u32], Place),
) {
    let panel = job.steps() * PANEL_STEP;
    let width = (GROUP / panel).max(1);
    for first in cols.clone().step_by(width) {
        for (row, a) in rows.clone().zip(a.chunks_exact(panel)) {
            for col in first..(first + width).min(cols.end) {
                f(a, &job.b[col * panel..][..panel], job.target.place(row, col));
            }
        }
    }
}
