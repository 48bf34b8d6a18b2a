//! Serial products of small matrices on checked views.

use crate::Isa;
use crate::mat::{MatMut, MatRef};
use crate::sgemm::{Block, gemm_block};

/// c = a·b + beta·c on the calling thread. With `beta == 0.0`, C is not read.
///
/// # Panics
/// When the shapes disagree, a view reaches outside its slice, or the rows of B are not
/// contiguous.
pub(super) fn product(isa: Isa, a: MatRef<'_>, b: MatRef<'_>, beta: f32, c: MatMut<'_>) {
    assert!(a.rows == c.rows && a.cols == b.rows && b.cols == c.cols, "product shapes disagree");
    assert!(a.fits() && b.fits() && c.fits() && b.col_stride == 1, "views of a product");
    let block = Block {
        k: a.cols,
        m: a.rows,
        n: b.cols,
        a: a.data.as_ptr(),
        a_row: a.row_stride,
        a_col: a.col_stride,
        b: b.data.as_ptr(),
        ldb: b.row_stride,
        c: c.data.as_mut_ptr(),
        ldc: c.row_stride,
        alpha: 1.0,
        beta,
    };
    // SAFETY: the views lie inside their slices, and C is borrowed mutably.
    unsafe { gemm_block(isa, &block) };
}
