//! Small dense matrices in f64, the arithmetic in which transforms are made and folded.

use std::ops::{Index, IndexMut};

use planish_ir::Tensor;

/// A dense row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    n_rows: usize,
    n_columns: usize,
    data: Vec<f64>,
}

impl Matrix {
    /// The matrix whose element at row i, column j is `element(i, j)`.
    pub fn from_fn(
        n_rows: usize,
        n_columns: usize,
        mut element: impl FnMut(usize, usize) -> f64,
    ) -> Self {
        let mut data = Vec::with_capacity(n_rows * n_columns);
        for i in 0..n_rows {
            data.extend((0..n_columns).map(|j| element(i, j)));
        }
        Self { n_rows, n_columns, data }
    }

    /// The identity of `n` rows.
    pub fn identity(n: usize) -> Self {
        Self::from_fn(n, n, |i, j| f64::from(u8::from(i == j)))
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Number of columns.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.n_columns..][..self.n_columns]
    }

    /// Row `i`, to be changed.
    pub fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.data[i * self.n_columns..][..self.n_columns]
    }

    /// Rows `p` and `q`, of which `p` comes first, to be changed.
    pub(super) fn two_rows_mut(&mut self, p: usize, q: usize) -> (&mut [f64], &mut [f64]) {
        let n = self.n_columns;
        let (before, from_q) = self.data.split_at_mut(q * n);
        (&mut before[p * n..][..n], &mut from_q[..n])
    }

    /// All elements, row by row.
    pub fn elements(&self) -> &[f64] {
        &self.data
    }

    /// The transpose.
    #[must_use]
    pub fn transposed(&self) -> Self {
        Self::from_fn(self.n_columns, self.n_rows, |i, j| self[(j, i)])
    }

    /// This matrix times `factor`.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        self.data.iter_mut().for_each(|x| *x *= factor);
        self
    }

    /// The product with `right`, whose rows must be as many as the columns here.
    #[must_use]
    pub fn times(&self, right: &Self) -> Self {
        debug_assert_eq!(self.n_columns, right.n_rows);
        let mut product = Self::from_fn(self.n_rows, right.n_columns, |_, _| 0.0);
        for i in 0..self.n_rows {
            for (k, factor) in self.row(i).iter().enumerate() {
                add_scaled(product.row_mut(i), *factor, right.row(k));
            }
        }
        product
    }

    /// The Kronecker product, this matrix being the coarse one.
    #[must_use]
    pub fn kronecker(&self, fine: &Self) -> Self {
        let (rows, columns) = (fine.n_rows, fine.n_columns);
        Self::from_fn(self.n_rows * rows, self.n_columns * columns, |i, j| {
            self[(i / rows, j / columns)] * fine[(i % rows, j % columns)]
        })
    }

    /// The matrix with every element rounded to f32: what a graph can hold. Inverses must be
    /// taken of this one, or the rounding would not cancel.
    #[must_use]
    pub fn rounded(mut self) -> Self {
        self.data.iter_mut().for_each(|x| *x = f64::from(*x as f32));
        self
    }

    /// An f32 tensor `[n_rows, n_columns]`.
    pub fn to_tensor(&self) -> Tensor {
        let data: Vec<f32> = self.data.iter().map(|x| *x as f32).collect();
        Tensor::from_vec(&[self.n_rows, self.n_columns], data)
    }

    /// Largest absolute difference to a matrix of the same size.
    pub fn max_difference(&self, other: &Self) -> f64 {
        let pairs = self.data.iter().zip(&other.data);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }
}

impl Index<(usize, usize)> for Matrix {
    type Output = f64;

    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        &self.row(i)[j]
    }
}

impl IndexMut<(usize, usize)> for Matrix {
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        &mut self.row_mut(i)[j]
    }
}

/// `target += factor · source`, element by element.
pub(super) fn add_scaled(target: &mut [f64], factor: f64, source: &[f64]) {
    target.iter_mut().zip(source).for_each(|(t, s)| *t += factor * s);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kronecker_products_multiply_factor_by_factor() {
        let matrix =
            |seed: usize| Matrix::from_fn(3, 3, |i, j| ((seed + i * 5 + j * 7) % 11) as f64);
        let (a, b, c, d) = (matrix(1), matrix(2), matrix(3), matrix(4));
        let product = a.kronecker(&b).times(&c.kronecker(&d));
        assert_eq!(product, a.times(&c).kronecker(&b.times(&d)));
    }

    #[test]
    fn a_transposed_product_swaps_its_factors() {
        let a = Matrix::from_fn(2, 3, |i, j| (i + 2 * j) as f64);
        let b = Matrix::from_fn(3, 4, |i, j| (3 * i + j) as f64);
        assert_eq!(a.times(&b).transposed(), b.transposed().times(&a.transposed()));
    }
}
