//! Functions of symmetric matrices.

use super::Matrix;

/// Rounds over all off-diagonal elements at most; Jacobi's method converges quadratically, so
/// that ten are plenty.
const MAX_ROUNDS: usize = 30;

/// The eigenvalues of a symmetric matrix and its orthonormal eigenvectors, the columns of the
/// second matrix, by Jacobi's rotations.
pub fn eigen(matrix: &Matrix) -> (Vec<f64>, Matrix) {
    let n = matrix.n_rows();
    // The vectors as rows, so that all of a rotation but its mirror image is along rows.
    let (mut a, mut vectors) = (matrix.clone(), Matrix::identity(n));
    let size: f64 = a.elements().iter().map(|x| x * x).sum::<f64>().sqrt();
    for _ in 0..MAX_ROUNDS {
        let beside = |i: usize| (0..n).filter(move |j| *j != i);
        let off: f64 =
            (0..n).flat_map(|i| beside(i).map(move |j| (i, j))).map(|at| a[at].powi(2)).sum();
        if off.sqrt() <= f64::EPSILON * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    ((0..n).map(|i| a[(i, i)]).collect(), vectors.transposed())
}

/// Makes a[p, q] and a[q, p] zero.
fn rotate(a: &mut Matrix, vectors: &mut Matrix, p: usize, q: usize) {
    let (diagonal, between) = ([a[(p, p)], a[(q, q)]], a[(p, q)]);
    if between == 0.0 {
        return;
    }
    let theta = (diagonal[1] - diagonal[0]) / (2.0 * between);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    rotate_rows(a, (p, q), (c, s));
    rotate_rows(vectors, (p, q), (c, s));
    a[(p, p)] = diagonal[0] - t * between;
    a[(q, q)] = diagonal[1] + t * between;
    (a[(p, q)], a[(q, p)]) = (0.0, 0.0);
    for k in (0..a.n_rows()).filter(|k| *k != p && *k != q) {
        (a[(k, p)], a[(k, q)]) = (a[(p, k)], a[(q, k)]);
    }
}

fn rotate_rows(matrix: &mut Matrix, (p, q): (usize, usize), (c, s): (f64, f64)) {
    let (first, second) = matrix.two_rows_mut(p, q);
    for (x, y) in first.iter_mut().zip(second) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

/// A power of a symmetric positive definite matrix; eigenvalues below `floor` times the largest
/// count as that.
pub fn power(matrix: &Matrix, exponent: f64, floor: f64) -> Matrix {
    let [power] = powers(matrix, [exponent], floor);
    power
}

/// Several powers of a matrix, each as [`power`].
pub fn powers<const N: usize>(matrix: &Matrix, exponents: [f64; N], floor: f64) -> [Matrix; N] {
    let (values, vectors) = eigen(matrix);
    let least = values.iter().fold(0.0f64, |max, x| max.max(*x)) * floor;
    exponents.map(|exponent| {
        let mut scaled = vectors.clone();
        for i in 0..scaled.n_rows() {
            for (x, value) in scaled.row_mut(i).iter_mut().zip(&values) {
                *x *= value.max(least).powf(exponent);
            }
        }
        scaled.times(&vectors.transposed())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Random;

    fn positive(n: usize) -> Matrix {
        let factor = Random::new(2).invertible(n, 30.0);
        factor.times(&factor.transposed())
    }

    #[test]
    fn eigenvectors_diagonalise() {
        for n in [1, 2, 9, 24, 64] {
            let matrix = positive(n);
            let (values, vectors) = eigen(&matrix);
            let gram = vectors.transposed().times(&vectors);
            assert!(gram.max_difference(&Matrix::identity(n)) < 1e-12, "{n}");
            let diagonal = Matrix::from_fn(n, n, |i, j| if i == j { values[i] } else { 0.0 });
            let back = vectors.times(&diagonal).times(&vectors.transposed());
            assert!(back.max_difference(&matrix) < 1e-11, "{n}");
        }
    }

    #[test]
    fn powers_multiply() {
        let matrix = positive(12);
        let root = power(&matrix, 0.5, 0.0);
        assert!(root.times(&root).max_difference(&matrix) < 1e-11);
        let [again, inverse] = powers(&matrix, [0.5, -1.0], 0.0);
        assert!(again.max_difference(&root) == 0.0);
        assert!(inverse.times(&matrix).max_difference(&Matrix::identity(12)) < 1e-10);
    }

    #[test]
    fn small_eigenvalues_are_lifted() {
        let matrix = Matrix::from_fn(2, 2, |i, j| if i == j { [4.0, 0.0][i] } else { 0.0 });
        let lifted = power(&matrix, -0.5, 0.25);
        assert!((lifted[(0, 0)] - 0.5).abs() < 1e-15 && (lifted[(1, 1)] - 1.0).abs() < 1e-15);
    }
}
