//! What happens to the sums of a block: factors on, and out.

use super::{SIDE, Sums};
use crate::Isa;
use crate::shared::SharedMut;
use crate::simd::simd_fn;

/// Where the sums go: a matrix of `n_rows` rows, `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) out: SharedMut<'a, f32>,
    pub(super) stride: usize,
    pub(super) n_rows: usize,
    /// The column that the first panel of B belongs to.
    pub(super) first: usize,
    /// Columns that the panels of B belong to.
    pub(super) n_cols: usize,
    pub(super) alpha: f32,
    pub(super) beta: f32,
}

impl Target<'_> {
    /// The element at the start of the block of panel `row` of A and panel `col` of B, and the
    /// rows and columns that the matrix has there.
    pub(super) fn block(&self, row: usize, col: usize) -> (*mut f32, usize, usize) {
        let (i, j) = (row * SIDE, col * SIDE);
        let rows = SIDE.min(self.n_rows - i);
        let cols = SIDE.min(self.n_cols - j);
        let start = i * self.stride + self.first + j;
        // Both ends are checked here, so that a block never leaves the slice.
        self.out.ptr_at(start + (rows - 1) * self.stride + cols);
        (self.out.ptr_at(start), rows, cols)
    }

    /// Writes the sums of a block.
    pub(super) fn write(&self, sums: &Sums, row: usize, col: usize) {
        write(Isa::Avx512, self, sums, self.block(row, col));
    }
}

simd_fn! {
    fn write<S>(t: &Target<'_>, sums: &Sums, block: (*mut f32, usize, usize)) {
        let (out, rows, cols) = block;
        let (alpha, beta) = (S::splat(t.alpha), S::splat(t.beta));
        for i in 0..rows {
            for j in (0..cols).step_by(S::LANES) {
                let lanes = S::first((cols - j).min(S::LANES));
                let to = out.add(i * t.stride + j);
                let mut y = S::mul(alpha, S::load(sums.0.as_ptr().add(i * SIDE + j)));
                if t.beta != 0.0 {
                    y = S::fma(beta, S::load_m(to, lanes), y);
                }
                S::store_m(to, y, lanes);
            }
        }
    }
}
