//! Rearranging matrices from GGUF's layout to ONNX's.

use std::ops::Range;

/// Side of the square that a transposition moves at a time, so that both its reads and its
/// writes stay within the first cache level.
const TILE: usize = 32;

/// A row-major matrix; a vector is a matrix of one row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// `rows · columns` values.
    pub(crate) values: Vec<f32>,
}

impl Matrix {
    /// `None` when `values` are not `rows · columns`.
    pub(crate) fn new(rows: usize, columns: usize, values: Vec<f32>) -> Option<Self> {
        (rows.checked_mul(columns)? == values.len()).then_some(Self { rows, columns, values })
    }

    /// Undoes llama.cpp's permutation of the rows of query and key weights.
    ///
    /// llama.cpp rotates neighbouring rows and so stores row s · d/2 + j of each head (s is 0 or
    /// 1, d the head dimension) as row 2 · j + s. `None` when the heads do not divide the rows
    /// into an even number each.
    pub(crate) fn unpermuted(&self, heads: usize) -> Option<Self> {
        let head_dim = self.rows.checked_div(heads)?;
        if head_dim * heads != self.rows || head_dim % 2 != 0 {
            return None;
        }
        let values = (0..self.rows)
            .flat_map(|row| {
                let (head, within) = (row / head_dim, row % head_dim);
                let (s, j) = (within / (head_dim / 2), within % (head_dim / 2));
                self.row(head * head_dim + 2 * j + s)
            })
            .copied()
            .collect();
        Some(Self { values, ..*self })
    }

    /// Rows become columns.
    pub(crate) fn transposed(&self) -> Self {
        let mut values = vec![0.0; self.values.len()];
        for rows in tiles(self.rows) {
            for columns in tiles(self.columns) {
                self.transpose_tile(&mut values, rows.clone(), columns);
            }
        }
        Self { rows: self.columns, columns: self.rows, values }
    }

    /// Joins matrices along `axis`: 0 puts them below, 1 beside one another. `None` when their
    /// other axes differ, or without any matrix.
    pub(crate) fn concatenated(mut parts: Vec<Self>, axis: usize) -> Option<Self> {
        if parts.len() == 1 {
            return parts.pop();
        }
        match axis {
            0 => Self::below(&parts),
            1 => Self::beside(&parts),
            _ => None,
        }
    }

    fn below(parts: &[Self]) -> Option<Self> {
        let columns = parts.first()?.columns;
        let fits = parts.iter().all(|part| part.columns == columns);
        let values = parts.iter().flat_map(|part| &part.values).copied().collect();
        fits.then_some(Self { rows: parts.iter().map(|part| part.rows).sum(), columns, values })
    }

    fn beside(parts: &[Self]) -> Option<Self> {
        let rows = parts.first()?.rows;
        if parts.iter().any(|part| part.rows != rows) {
            return None;
        }
        let values =
            (0..rows).flat_map(|row| parts.iter().flat_map(move |part| part.row(row))).copied();
        let columns = parts.iter().map(|part| part.columns).sum();
        Some(Self { rows, columns, values: values.collect() })
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..][..self.columns]
    }

    fn transpose_tile(&self, out: &mut [f32], rows: Range<usize>, columns: Range<usize>) {
        for column in columns {
            let out = &mut out[column * self.rows..][..self.rows];
            for row in rows.clone() {
                out[row] = self.values[row * self.columns + column];
            }
        }
    }
}

fn tiles(length: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(TILE).map(move |start| start..length.min(start + TILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(rows: usize, columns: usize) -> Matrix {
        Matrix::new(rows, columns, (0..rows * columns).map(|value| value as f32).collect()).unwrap()
    }

    /// The permutation as llama.cpp's converter applies it: reshape each head's rows to
    /// [2, d/2], swap the two axes.
    fn permute(matrix: &Matrix, heads: usize) -> Matrix {
        let head_dim = matrix.rows / heads;
        let mut permuted = matrix.clone();
        for head in 0..heads {
            for s in 0..2 {
                for j in 0..head_dim / 2 {
                    for column in 0..matrix.columns {
                        let from = head * head_dim + s * head_dim / 2 + j;
                        let to = head * head_dim + 2 * j + s;
                        permuted.values[to * matrix.columns + column] =
                            matrix.values[from * matrix.columns + column];
                    }
                }
            }
        }
        permuted
    }

    #[test]
    fn the_row_permutation_is_undone() {
        let original = counting(3 * 8, 5);
        let stored = permute(&original, 3);
        assert_ne!(stored, original);
        assert_eq!(stored.unpermuted(3).unwrap(), original);
    }

    #[test]
    fn one_head_of_four_rows_by_hand() {
        let stored = Matrix::new(4, 1, vec![0.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(stored.unpermuted(1).unwrap().values, [0.0, 2.0, 1.0, 3.0]);
    }

    #[test]
    fn heads_that_do_not_divide_the_rows_are_refused() {
        assert!(counting(8, 1).unpermuted(0).is_none());
        assert!(counting(8, 1).unpermuted(3).is_none());
        assert!(counting(6, 1).unpermuted(2).is_none());
    }

    #[test]
    fn transposing_crosses_tiles() {
        let matrix = counting(TILE + 3, 2 * TILE + 5);
        let transposed = matrix.transposed();
        assert_eq!((transposed.rows, transposed.columns), (2 * TILE + 5, TILE + 3));
        for row in 0..matrix.rows {
            for column in 0..matrix.columns {
                let value = transposed.values[column * matrix.rows + row];
                assert_eq!(value, matrix.values[row * matrix.columns + column]);
            }
        }
    }

    #[test]
    fn matrices_are_joined_below_and_beside() {
        let one = Matrix::new(2, 1, vec![1.0, 2.0]).unwrap();
        let two = Matrix::new(2, 2, vec![3.0, 4.0, 5.0, 6.0]).unwrap();
        let beside = Matrix::concatenated(vec![one.clone(), two.clone()], 1).unwrap();
        assert_eq!(beside, Matrix::new(2, 3, vec![1.0, 3.0, 4.0, 2.0, 5.0, 6.0]).unwrap());
        let below = Matrix::concatenated(vec![one.clone(), one.clone()], 0).unwrap();
        assert_eq!(below, Matrix::new(4, 1, vec![1.0, 2.0, 1.0, 2.0]).unwrap());
        assert!(Matrix::concatenated(vec![one, two], 0).is_none());
        assert!(Matrix::concatenated(Vec::new(), 0).is_none());
    }

    #[test]
    fn a_matrix_needs_as_many_values_as_it_has_places() {
        assert!(Matrix::new(2, 2, vec![0.0; 3]).is_none());
        assert!(Matrix::new(usize::MAX, 2, Vec::new()).is_none());
    }
}
