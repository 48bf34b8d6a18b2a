//! A closed-form start of a transform from what it stands between.

use crate::transform::{Matrix, eigen, power, powers};

/// Added to the diagonals, in units of their means.
const DAMPING: f64 = 1e-3;
/// Eigenvalues count as at least this part of the largest.
const FLOOR: f64 = 1e-6;

/// The transform P of activations with the second moments `activations` (x becomes xP) and of
/// weights with the second moments `weights` over output channels (W becomes P⁻¹W), both
/// `[n, n]`, after which both have the same second moments, spread evenly by `rotation`.
///
/// With A and B the moments, M = A^−½ (A^½ B A^½)^½ A^−½ is the geometric mean of A⁻¹ and B, and
/// P₀ = M^½ gives P₀AP₀ = P₀⁻¹BP₀⁻¹. E holds the eigenvectors of that, and P = P₀ · E · R: in
/// the basis E channels are uncorrelated, and R = `rotation`, whose elements are all alike,
/// gives every channel the same variance. The balance of both sides is that of WUSH (arXiv
/// 2512.00956) and CAT (arXiv 2603.04359).
pub(super) fn balanced(activations: &Matrix, weights: &Matrix, rotation: &Matrix) -> Matrix {
    let (a, b) = (damped(activations), damped(weights));
    let [root, inverse_root] = powers(&a, [0.5, -0.5], FLOOR);
    let middle = power(&root.times(&b).times(&root), 0.5, FLOOR);
    let mean = inverse_root.times(&middle).times(&inverse_root);
    let even = power(&symmetric(&mean), 0.5, FLOOR);
    let common = even.times(&a).times(&even);
    let (_, vectors) = eigen(&symmetric(&common));
    even.times(&vectors).times(rotation)
}

/// The matrix over the mean of its diagonal, with a little added to that.
fn damped(matrix: &Matrix) -> Matrix {
    let n = matrix.n_rows();
    let mean = (0..n).map(|i| matrix[(i, i)]).sum::<f64>() / n as f64;
    if !(mean.is_finite() && mean > 0.0) {
        return Matrix::identity(n);
    }
    let mut result = symmetric(matrix).scaled(1.0 / mean);
    (0..n).for_each(|i| result[(i, i)] += DAMPING);
    result
}

/// Without what rounding adds to one triangle only.
fn symmetric(matrix: &Matrix) -> Matrix {
    let n = matrix.n_rows();
    Matrix::from_fn(n, n, |i, j| 0.5 * (matrix[(i, j)] + matrix[(j, i)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::{Random, inverse, spreading};

    fn moments(seed: u64, n: usize) -> Matrix {
        let factor = Random::new(seed).invertible(n, 50.0);
        factor.times(&factor.transposed())
    }

    #[test]
    fn both_sides_have_the_same_even_moments() {
        let n = 24;
        let (a, b) = (moments(1, n), moments(2, n));
        let p = balanced(&a, &b, &spreading(n));
        let p_inverse = inverse(&p).unwrap();
        let (a, b) = (damped(&a), damped(&b));
        let activations = p.transposed().times(&a).times(&p);
        let weights = p_inverse.times(&b).times(&p_inverse.transposed());
        assert!(activations.max_difference(&weights) < 1e-9);
        let mean = (0..n).map(|i| activations[(i, i)]).sum::<f64>() / n as f64;
        assert!((0..n).all(|i| (activations[(i, i)] - mean).abs() < 1e-9 * mean));
    }

    #[test]
    fn moments_that_say_nothing_leave_the_rotation() {
        let (zero, rotation) = (Matrix::from_fn(8, 8, |_, _| 0.0), spreading(8));
        let p = balanced(&zero, &zero, &rotation);
        let gram = p.transposed().times(&p);
        assert!(gram.max_difference(&Matrix::identity(8)) < 1e-9);
    }
}
