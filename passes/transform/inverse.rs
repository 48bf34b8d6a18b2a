//! The inverse of a matrix.

use super::Matrix;
use super::matrix::add_scaled;

/// A matrix that has no inverse, or none that f64 arithmetic finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {n} x {n} matrix is singular")]
pub struct SingularMatrix {
    /// Its number of rows.
    pub n: usize,
}

/// The inverse of a square matrix, by Gauss–Jordan elimination with partial pivoting.
///
/// # Errors
/// If a pivot vanishes against the largest element, or an element is no finite number.
pub fn inverse(matrix: &Matrix) -> Result<Matrix, SingularMatrix> {
    let n = matrix.n_rows();
    debug_assert_eq!(n, matrix.n_columns());
    let largest = matrix.elements().iter().fold(0.0f64, |max, x| max.max(x.abs()));
    let threshold = largest * n as f64 * f64::EPSILON;
    let finite = matrix.elements().iter().all(|x| x.is_finite());
    let mut left = matrix.clone();
    let mut right = Matrix::identity(n);
    for column in 0..n {
        let pivot = pivot_row(&left, column);
        if !finite || left[(pivot, column)].abs() <= threshold {
            return Err(SingularMatrix { n });
        }
        swap_rows(&mut left, pivot, column);
        swap_rows(&mut right, pivot, column);
        eliminate(&mut left, &mut right, column);
    }
    Ok(right)
}

/// The row from `column` down with the largest element in that column.
fn pivot_row(matrix: &Matrix, column: usize) -> usize {
    let size = |row: &usize| matrix[(*row, column)].abs();
    (column..matrix.n_rows()).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap_or(column)
}

fn swap_rows(matrix: &mut Matrix, a: usize, b: usize) {
    for column in 0..matrix.n_columns() {
        let kept = matrix[(a, column)];
        matrix[(a, column)] = matrix[(b, column)];
        matrix[(b, column)] = kept;
    }
}

/// Makes `column` of `left` that of the identity; does to `right` what it does to `left`.
fn eliminate(left: &mut Matrix, right: &mut Matrix, column: usize) {
    let pivot = left[(column, column)];
    for matrix in [&mut *left, &mut *right] {
        matrix.row_mut(column).iter_mut().for_each(|x| *x /= pivot);
    }
    let (left_row, right_row) = (left.row(column).to_vec(), right.row(column).to_vec());
    for row in (0..left.n_rows()).filter(|row| *row != column) {
        let factor = -left[(row, column)];
        add_scaled(left.row_mut(row), factor, &left_row);
        add_scaled(right.row_mut(row), factor, &right_row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Random;

    #[test]
    fn an_inverse_undoes_its_matrix() {
        for n in [1, 2, 9, 48] {
            let matrix = Random::new(n as u64).invertible(n, 100.0);
            let product = matrix.times(&inverse(&matrix).unwrap());
            assert!(product.max_difference(&Matrix::identity(n)) < 1e-11, "{n}");
        }
    }

    #[test]
    fn a_matrix_that_needs_row_exchanges_is_inverted() {
        let matrix = Matrix::from_fn(3, 3, |i, j| f64::from(u8::from((i + 1) % 3 == j)));
        assert_eq!(inverse(&matrix).unwrap(), matrix.transposed());
    }

    #[test]
    fn singular_and_infinite_matrices_are_refused() {
        let rank_one = Matrix::from_fn(4, 4, |i, j| ((i + 1) * (j + 1)) as f64 / 3.0);
        assert_eq!(inverse(&rank_one), Err(SingularMatrix { n: 4 }));
        let mut infinite = Matrix::identity(2);
        infinite[(0, 1)] = f64::INFINITY;
        assert_eq!(inverse(&infinite), Err(SingularMatrix { n: 2 }));
    }
}
