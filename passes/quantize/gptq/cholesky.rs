//! The Cholesky factor of a symmetric matrix.

use crate::parallel::{for_each_chunk, for_each_item};

/// Columns that are eliminated together.
const BLOCK: usize = 64;
/// Elements of a row that are updated together: their sums stay in registers.
const TILE: usize = 8;
/// Rows that are updated together, a multiple of `TILE`: what they are updated by stays in the
/// nearest cache.
const STRIP: usize = 32;

/// L, lower triangular with a positive diagonal, for which L · Lᵀ is a given matrix.
pub(super) struct Cholesky {
    n: usize,
    /// Row by row; what stands right of the diagonal means nothing.
    elements: Vec<f64>,
}

impl Cholesky {
    /// Factorises a symmetric matrix `[n, n]`, of which only the lower triangle is read; `None` if
    /// it is not positive definite. Right-looking, block column by block column (Golub and Van
    /// Loan, Matrix Computations, 4.2.6).
    pub(super) fn new(matrix: Vec<f64>, n: usize) -> Option<Self> {
        debug_assert_eq!(matrix.len(), n * n);
        let mut elements = matrix;
        for first in (0..n).step_by(BLOCK) {
            let end = (first + BLOCK).min(n);
            factorise_block(&mut elements, n, first, end)?;
            solve_below(&mut elements, n, first, end);
            update_rest(&mut elements, n, first, end);
        }
        Some(Self { n, elements })
    }

    /// Row i, of which the first i + 1 elements are the factor's.
    pub(super) fn row(&self, i: usize) -> &[f64] {
        &self.elements[i * self.n..][..self.n]
    }
}

/// The factor of the block on the diagonal, in its place.
fn factorise_block(elements: &mut [f64], n: usize, first: usize, end: usize) -> Option<()> {
    for i in first..end {
        let (above, rest) = elements.split_at_mut(i * n);
        let row = &mut rest[first..end];
        for j in first..i {
            let other = &above[j * n + first..j * n + end];
            row[j - first] = (row[j - first] - dot(row, other, j - first)) / other[j - first];
        }
        let pivot = row[i - first] - dot(row, row, i - first);
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        row[i - first] = pivot.sqrt();
    }
    Some(())
}

fn dot(a: &[f64], b: &[f64], n: usize) -> f64 {
    a[..n].iter().zip(&b[..n]).map(|(a, b)| a * b).sum()
}

/// The block's columns of the rows below it: each row times the inverse of the block's transpose.
fn solve_below(elements: &mut [f64], n: usize, first: usize, end: usize) {
    let (above, below) = elements.split_at_mut(end * n);
    let size = end - first;
    // Column j of the block as a row, so that a row is updated by runs of it.
    let block = |i: usize, j: usize| above[(first + i) * n + first + j];
    let columns: Vec<f64> = (0..size * size).map(|at| block(at % size, at / size)).collect();
    let cost = below.len() / n.max(1) * size * size;
    for_each_chunk(below, n, cost, |_, row| {
        let row = &mut row[first..end];
        for j in 0..size {
            let column = &columns[j * size..][..size];
            row[j] /= column[j];
            let solved = row[j];
            row[j + 1..].iter_mut().zip(&column[j + 1..]).for_each(|(x, l)| *x -= solved * l);
        }
    });
}

/// Takes the block's part out of the rows and columns after it: A ← A − L₂₁ · L₂₁ᵀ.
fn update_rest(elements: &mut [f64], n: usize, first: usize, end: usize) {
    let size = end - first;
    let below = &mut elements[end * n..];
    let tiles = packed(below, n, first, size);
    let n_below = below.len() / n.max(1);
    let mut strips: Vec<&mut [f64]> = below.chunks_mut(STRIP * n).collect();
    // Rows get longer from one to the next.
    for_each_item(&mut strips, n_below * n_below * size, |strip, rows| {
        let top = strip * STRIP;
        for (t, tile) in tiles.chunks(TILE * size).enumerate().take(top / TILE + STRIP / TILE) {
            for (i, row) in rows.chunks_mut(n).enumerate().skip((t * TILE).saturating_sub(top)) {
                let (left, right) = row.split_at_mut(end);
                let target = &mut right[t * TILE..=top + i];
                let width = target.len().min(TILE);
                subtract(&mut target[..width], &left[first..], tile);
            }
        }
    });
}

/// The block's columns of some rows, `TILE` rows at a time: `[tiles, size, TILE]`, with zeros after
/// the last row.
fn packed(rows: &[f64], n: usize, first: usize, size: usize) -> Vec<f64> {
    let n_rows = rows.len() / n.max(1);
    let mut tiles = vec![0.0; n_rows.next_multiple_of(TILE) * size];
    for (i, row) in rows.chunks(n).enumerate() {
        let tile = &mut tiles[i / TILE * TILE * size..][..TILE * size];
        for (k, x) in row[first..first + size].iter().enumerate() {
            tile[k * TILE + i % TILE] = *x;
        }
    }
    tiles
}

/// target_j ← target_j − Σ_k factors_k · tile_kj.
fn subtract(target: &mut [f64], factors: &[f64], tile: &[f64]) {
    let mut sums = [0.0; TILE];
    for (factor, line) in factors.iter().zip(tile.chunks_exact(TILE)) {
        sums.iter_mut().zip(line).for_each(|(sum, x)| *sum += factor * x);
    }
    target.iter_mut().zip(sums).for_each(|(t, sum)| *t -= sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Random;

    /// B · Bᵀ of a random B `[n, n]`, plus the identity.
    fn positive(n: usize) -> Vec<f64> {
        let mut random = Random::new(n as u64);
        let b: Vec<f64> = (0..n * n).map(|_| random.normal()).collect();
        let row = |i: usize| &b[i * n..][..n];
        let element = |i: usize, j: usize| dot(row(i), row(j), n) + f64::from(u8::from(i == j));
        (0..n * n).map(|at| element(at / n, at % n)).collect()
    }

    #[test]
    fn a_factor_times_its_transpose_is_the_matrix() {
        for n in [1, 7, 64, 65, 150, 200] {
            let matrix = positive(n);
            let factor = Cholesky::new(matrix.clone(), n).unwrap();
            for i in 0..n {
                for j in 0..=i {
                    let product = dot(factor.row(i), factor.row(j), j + 1);
                    let expected = matrix[i * n + j];
                    assert!((product - expected).abs() < 1e-10 * n as f64, "{n}: {i} {j}");
                }
                assert!(factor.row(i)[i] > 0.0);
            }
        }
    }

    #[test]
    fn matrices_that_are_not_positive_definite_are_refused() {
        let n = 130;
        for (at, value) in [(0, -1.0), (129, -1.0), (100, f64::NAN)] {
            let mut matrix = positive(n);
            matrix[at * n + at] = value;
            assert!(Cholesky::new(matrix, n).is_none());
        }
        assert!(Cholesky::new(vec![0.0; 4], 2).is_none());
    }
}
