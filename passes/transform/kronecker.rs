//! Kronecker products P₁ ⊗ P₂ as transforms of channels.

use super::Matrix;
use super::matrix::add_scaled;
use crate::parallel::for_each_chunk;

/// The sizes (n₁, n₂) of the factors for `n` channels, n₁ ≤ n₂: for the smallest a ≥ √n for which
/// a² − n is a square b², n₁ = a − b and n₂ = a + b (FlatQuant). Where no a gives one (n twice an
/// odd number), n₁ is the largest divisor up to √n.
pub fn kronecker_sizes(n: usize) -> (usize, usize) {
    let first = (1..=n).rev().find(|d| d * d <= n && n.is_multiple_of(*d)).unwrap_or(1);
    let root = n.isqrt() + usize::from(n.isqrt().pow(2) < n);
    // Larger a than this would make n₁ smaller than any divisor.
    for a in root..=n.div_ceil(2) + 1 {
        let rest = a * a - n;
        let b = rest.isqrt();
        if b * b == rest && a > b {
            return (a - b, a + b);
        }
    }
    (first, n / first.max(1))
}

/// Multiplies the rows of a matrix: W ← (L ⊗ R) · W, where `weight` is `[n₁ · n₂, n_columns]`,
/// L is n₁ × n₁ and R is n₂ × n₂. One factor after the other, n · n_columns · (n₁ + n₂) products.
pub fn multiply_rows(weight: &mut Vec<f64>, n_columns: usize, left: &Matrix, right: &Matrix) {
    let (n1, n2) = (left.n_rows(), right.n_rows());
    debug_assert_eq!(weight.len(), n1 * n2 * n_columns);
    combine_rows(weight, n_columns, |row, k| (right, row % n2, row / n2 * n2 + k), n2);
    combine_rows(weight, n_columns, |row, k| (left, row / n2, k * n2 + row % n2), n1);
}

/// Replaces every row by a sum of `n_terms` rows: term `k` of row `row` is (M, i, source), for the
/// summand `M[i, k] · row[source]`.
fn combine_rows<'m>(
    weight: &mut Vec<f64>,
    n_columns: usize,
    term: impl Fn(usize, usize) -> (&'m Matrix, usize, usize) + Sync,
    n_terms: usize,
) {
    let mut result = vec![0.0; weight.len()];
    for_each_chunk(&mut result, n_columns, weight.len() * n_terms, |row, sum| {
        for k in 0..n_terms {
            let (matrix, i, source) = term(row, k);
            add_scaled(sum, matrix[(i, k)], &weight[source * n_columns..][..n_columns]);
        }
    });
    *weight = result;
}

/// Multiplies the rows of a matrix from the right: each run of n₁ · n₂ values of `rows`, times
/// `scale` where there is one, becomes itself times L ⊗ R. Sums are taken in f64.
pub fn multiply_columns(rows: &mut [f32], scale: Option<&[f64]>, left: &Matrix, right: &Matrix) {
    let (n1, n2) = (left.n_rows(), right.n_rows());
    let cost = rows.len() * (n1 + n2);
    for_each_chunk(rows, n1 * n2, cost, |_, row| {
        let mut by_right = vec![0.0; n1 * n2];
        for (j, x) in row.iter().enumerate() {
            let x = f64::from(*x) * scale.map_or(1.0, |scale| scale[j]);
            add_scaled(&mut by_right[j / n2 * n2..][..n2], x, right.row(j % n2));
        }
        let mut product = vec![0.0; n1 * n2];
        for (k, part) in by_right.chunks(n2).enumerate() {
            for (i, sum) in product.chunks_mut(n2).enumerate() {
                add_scaled(sum, left[(k, i)], part);
            }
        }
        row.iter_mut().zip(product).for_each(|(x, sum)| *x = sum as f32);
    });
}

/// Multiplies groups of channels from the right: every run of d values of each row of `weight`
/// within the columns `first .. first + len` becomes itself times the d × d matrix.
pub fn multiply_heads(
    weight: &mut [f64],
    n_columns: usize,
    first: usize,
    len: usize,
    matrix: &Matrix,
) {
    let d = matrix.n_rows();
    debug_assert_eq!(len % d, 0);
    let cost = weight.len() / n_columns * len * d;
    for_each_chunk(weight, n_columns, cost, |_, row| {
        let mut product = vec![0.0; d];
        for head in row[first..first + len].chunks_mut(d) {
            product.fill(0.0);
            head.iter().enumerate().for_each(|(k, x)| add_scaled(&mut product, *x, matrix.row(k)));
            head.copy_from_slice(&product);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Random;

    #[test]
    fn sizes_are_those_of_flatquant() {
        let known = [(576, (24, 24)), (1536, (32, 48)), (4096, (64, 64)), (11008, (86, 128))];
        for (n, sizes) in
            known.into_iter().chain([(14336, (112, 128)), (48, (6, 8)), (80, (8, 10))])
        {
            assert_eq!(kronecker_sizes(n), sizes, "{n}");
        }
    }

    #[test]
    fn every_size_is_factored() {
        for n in 1..200 {
            let (a, b) = kronecker_sizes(n);
            assert!(a <= b && a * b == n, "{n}: {a} · {b}");
        }
        assert_eq!(kronecker_sizes(50), (5, 10));
        assert_eq!(kronecker_sizes(7), (1, 7));
    }

    #[test]
    fn rows_are_multiplied_as_by_the_whole_product() {
        let mut random = Random::new(1);
        let (left, right) = (random.invertible(3, 9.0), random.invertible(4, 9.0));
        let weight = Matrix::from_fn(12, 5, |_, _| random.normal());
        let expected = left.kronecker(&right).times(&weight);
        let mut rows = weight.elements().to_vec();
        multiply_rows(&mut rows, 5, &left, &right);
        let actual = Matrix::from_fn(12, 5, |i, j| rows[i * 5 + j]);
        assert!(actual.max_difference(&expected) < 1e-12);
    }

    #[test]
    fn columns_are_multiplied_as_by_the_whole_product() {
        let mut random = Random::new(3);
        let (left, right) = (random.invertible(3, 9.0), random.invertible(4, 9.0));
        let mut rows: Vec<f32> = (0..5 * 12).map(|_| random.normal() as f32).collect();
        let scale: Vec<f64> = (0..12).map(|_| random.uniform() + 0.5).collect();
        let scaled = Matrix::from_fn(5, 12, |i, j| f64::from(rows[i * 12 + j]) * scale[j]);
        let expected = scaled.times(&left.kronecker(&right));
        multiply_columns(&mut rows, Some(&scale), &left, &right);
        let actual = Matrix::from_fn(5, 12, |i, j| f64::from(rows[i * 12 + j]));
        assert!(actual.max_difference(&expected) < 1e-5);
    }

    #[test]
    fn heads_are_multiplied_within_their_columns_only() {
        let mut random = Random::new(2);
        let matrix = random.invertible(3, 9.0);
        let weight = Matrix::from_fn(2, 8, |_, _| random.normal());
        let mut columns = weight.elements().to_vec();
        multiply_heads(&mut columns, 8, 1, 6, &matrix);
        let whole = Matrix::from_fn(8, 8, |i, j| match (i, j) {
            (0, _) | (7, _) | (_, 0) | (_, 7) => f64::from(u8::from(i == j)),
            _ if (i - 1) / 3 == (j - 1) / 3 => matrix[((i - 1) % 3, (j - 1) % 3)],
            _ => 0.0,
        });
        let actual = Matrix::from_fn(2, 8, |i, j| columns[i * 8 + j]);
        assert!(actual.max_difference(&weight.times(&whole)) < 1e-12);
    }
}
