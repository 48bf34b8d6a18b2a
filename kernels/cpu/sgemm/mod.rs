//! f32 matrix products, c = alpha·a·b + beta·c, on strided views.

mod block;
mod deep;
mod gemv;
mod pack;

pub(crate) use block::{Block, gemm_block};
pub(crate) use pack::{PANEL, pack_panel};

use crate::mat::{MatMut, MatRef};
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::{Isa, scratch};

/// Up to this many rows, reading B in place costs less than packing it.
const ROWS_WITHOUT_PACKING: usize = 12;
/// Depth of a packed panel: 144 x 64 values leave room for the rows of A in the first cache.
const MAX_DEPTH: usize = 144;

/// c\[m, n\] = alpha · a\[m, k\] · b\[k, n\] + beta · c, all f32 with f32 sums.
///
/// Any strides are taken; B is packed by panels on the fly. With `beta == 0.0`, C is not read. One
/// row runs as a matrix-vector product that reads B once, in place.
///
/// # Panics
/// When the shapes disagree or a view reaches outside its slice.
pub fn sgemm(
    pool: &ThreadPool,
    isa: Isa,
    alpha: f32,
    a: MatRef<'_>,
    b: MatRef<'_>,
    beta: f32,
    c: MatMut<'_>,
) {
    assert!(a.rows == c.rows && a.cols == b.rows && b.cols == c.cols, "sgemm shapes disagree");
    assert!(a.fits() && b.fits() && c.fits(), "a matrix view reaches outside its slice");
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    if a.cols == 0 {
        return scale_rows(beta, c);
    }
    if c.rows == 1 && (b.col_stride == 1 || b.row_stride == 1) {
        return gemv::gemv(pool, isa, alpha, a, b, beta, &mut c.data[..b.cols]);
    }
    let p = Product { alpha, a, b, beta };
    match deep::n_parts(c.rows, a.cols, c.cols, pool.n_threads()) {
        1 => gemm(pool, isa, p, c),
        parts => deep::gemm(pool, isa, p, c, parts),
    }
}

/// The operands of alpha·a·b + beta·c but for c.
#[derive(Clone, Copy)]
struct Product<'a> {
    alpha: f32,
    a: MatRef<'a>,
    b: MatRef<'a>,
    beta: f32,
}

fn scale_rows(beta: f32, c: MatMut<'_>) {
    for i in 0..c.rows {
        for x in &mut c.data[i * c.row_stride..][..c.cols] {
            *x = if beta == 0.0 { 0.0 } else { *x * beta };
        }
    }
}

/// Splits C into tiles of a panel's width and `height` rows, and hands them to the threads.
fn gemm(pool: &ThreadPool, isa: Isa, p: Product<'_>, c: MatMut<'_>) {
    let (m, n, stride) = (c.rows, c.cols, c.row_stride);
    let n_panels = n.div_ceil(PANEL);
    let height = tile_height(m, n_panels, pool.n_threads());
    let n_strips = m.div_ceil(height);
    let out = SharedMut::new(c.data);
    let n_tasks = n_panels * n_strips;
    // A thread takes neighbouring panels, which lie in the same lines and pages of memory.
    let chunk = match m * n * p.a.cols {
        ..40_000 => usize::MAX,
        _ => n_tasks / (8 * pool.n_threads()),
    };
    pool.for_each_dynamic(n_tasks, chunk, |tasks| {
        for task in tasks {
            let (strip, panel) = (task / n_panels, task % n_panels);
            let rows = strip * height..((strip + 1) * height).min(m);
            let cols = panel * PANEL..((panel + 1) * PANEL).min(n);
            tile(
                isa,
                p,
                rows.clone(),
                cols.clone(),
                out.ptr_at(rows.start * stride + cols.start),
                stride,
            );
        }
    });
}

/// Rows of a task: all of them when the panels alone keep the threads busy.
fn tile_height(m: usize, n_panels: usize, n_threads: usize) -> usize {
    let strips = (8 * n_threads).div_ceil(n_panels);
    if n_threads == 1 || strips <= 1 { m } else { m.div_ceil(strips).next_multiple_of(24).max(48) }
}

fn tile(
    isa: Isa,
    p: Product<'_>,
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
    c: *mut f32,
    ldc: usize,
) {
    let k = p.a.cols;
    let in_place = p.b.col_stride == 1 && rows.len() <= ROWS_WITHOUT_PACKING;
    let depth = if in_place { k } else { k.div_ceil(k.div_ceil(MAX_DEPTH)) };
    let packed_len = if in_place { 0 } else { depth * PANEL };
    scratch::with(packed_len, |panel: &mut [f32]| {
        for start in (0..k).step_by(depth) {
            let len = depth.min(k - start);
            let (b, ldb) = if in_place {
                (p.b.data[start * p.b.row_stride + cols.start..].as_ptr(), p.b.row_stride)
            } else {
                pack_panel(isa, p.b, start..start + len, cols.clone(), panel);
                (panel.as_ptr(), PANEL)
            };
            let a = p.a.data[rows.start * p.a.row_stride + start * p.a.col_stride..].as_ptr();
            let block = Block {
                k: len,
                m: rows.len(),
                n: cols.len(),
                a,
                a_row: p.a.row_stride,
                a_col: p.a.col_stride,
                b,
                ldb,
                c,
                ldc,
                alpha: p.alpha,
                beta: if start == 0 { p.beta } else { 1.0 },
            };
            // SAFETY: `sgemm` checked that the views lie in their slices; tasks own their tile.
            unsafe { gemm_block(isa, &block) };
        }
    });
}
