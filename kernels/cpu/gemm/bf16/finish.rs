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

/// Where a block lies in the matrix.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Its first element.
    pub(super) start: *mut f32,
    /// Rows that the matrix has there.
    pub(super) rows: usize,
    /// Columns that it has there.
    pub(super) cols: usize,
}

impl Place {
    /// Whether the block lies wholly inside the matrix.
    pub(super) fn is_whole(&self) -> bool {
        self.rows == SIDE && self.cols == SIDE
    }
}

impl Target<'_> {
    /// The block of panel `row` of A and panel `col` of B.
    pub(super) fn place(&self, row: usize, col: usize) -> Place {
        let (i, j) = (row * SIDE, col * SIDE);
        let (rows, cols) = (SIDE.min(self.n_rows - i), SIDE.min(self.n_cols - j));
        let start = i * self.stride + self.first + j;
        // Both ends are checked, so that a block never leaves the slice.
        self.out.ptr_at(start + (rows - 1) * self.stride + cols);
        Place { start: self.out.ptr_at(start), rows, cols }
    }

    /// Whether the sums go out as they are.
    pub(super) fn is_plain(&self) -> bool {
        self.alpha == 1.0 && self.beta == 0.0
    }

    /// Writes the sums of a block.
    pub(super) fn write(&self, sums: &Sums, place: Place) {
        write(Isa::Avx512, self, sums, place);
    }
}

simd_fn! {
    fn write<S>(t: &Target<'_>, sums: &Sums, place: Place) {
        let (alpha, beta) = (S::splat(t.alpha), S::splat(t.beta));
        for i in 0..place.rows {
            for j in (0..place.cols).step_by(S::LANES) {
                let lanes = S::first((place.cols - j).min(S::LANES));
                let to = place.start.add(i * t.stride + j);
                let mut y = S::mul(alpha, S::load(sums.0.as_ptr().add(i * SIDE + j)));
                if t.beta != 0.0 {
                    y = S::fma(beta, S::load_m(to, lanes), y);
                }
                S::store_m(to, y, lanes);
            }
        }
    }
}
