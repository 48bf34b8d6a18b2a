//! Packing of a part of B into a dense panel.

use crate::Isa;
use crate::mat::MatRef;
use crate::simd::simd_fn;
use std::ops::Range;

/// Columns of a packed panel.
pub(crate) const PANEL: usize = 64;

/// Copies rows `depth` and columns `cols` (at most [`PANEL`]) of `b` to `panel`, row-major with
/// `PANEL` values a row; columns past the range keep old values.
pub(crate) fn pack_panel(
    isa: Isa,
    b: MatRef<'_>,
    depth: Range<usize>,
    cols: Range<usize>,
    panel: &mut [f32],
) {
    if b.col_stride == 1 {
        for (row, k) in panel.chunks_exact_mut(PANEL).zip(depth) {
            row[..cols.len()]
                .copy_from_slice(&b.data[k * b.row_stride + cols.start..][..cols.len()]);
        }
    } else if b.row_stride == 1 {
        pack_columns(isa, b, depth, cols, panel);
    } else {
        for (row, k) in panel.chunks_exact_mut(PANEL).zip(depth) {
            for (x, j) in row.iter_mut().zip(cols.clone()) {
                *x = b.data[k * b.row_stride + j * b.col_stride];
            }
        }
    }
}

simd_fn! {
    /// The form for columns that are contiguous in memory: transposes square blocks.
    fn pack_columns<S>(b: MatRef<'_>, depth: Range<usize>, cols: Range<usize>, panel: &mut [f32]) {
        let at = |k: usize, j: usize| (cols.start + j) * b.col_stride + depth.start + k;
        let (whole_k, whole_j) =
            (depth.len() / S::LANES * S::LANES, cols.len() / S::LANES * S::LANES);
        assert!(panel.len() >= depth.len() * PANEL && cols.len() <= PANEL && b.fits());
        for j in (0..whole_j).step_by(S::LANES) {
            for k in (0..whole_k).step_by(S::LANES) {
                let src = b.data.as_ptr().add(at(k, j));
                S::transpose(src, b.col_stride, panel.as_mut_ptr().add(k * PANEL + j), PANEL);
            }
        }
        for j in 0..cols.len() {
            for k in if j < whole_j { whole_k } else { 0 }..depth.len() {
                panel[k * PANEL + j] = b.data[at(k, j)];
            }
        }
    }
}
