//! Folding into the weight and bias of one linear layer.

use std::ops::Range;

use super::{Matrix, multiply_heads, multiply_rows};

/// What changes in a linear layer so that it takes a transformed input and gives a transformed
/// output.
#[derive(Clone, Debug, Default)]
pub(super) struct LinearFold {
    /// δ, which was subtracted from its input: the bias makes up for it.
    pub(super) row_shift: Option<Vec<f64>>,
    /// What each row of the weight is multiplied by (the scale that its input was divided by).
    pub(super) row_scale: Option<Vec<f64>>,
    /// L and R: the rows become (L ⊗ R) · W, L ⊗ R being the inverse of the input's transform.
    pub(super) row_matrices: Option<(Matrix, Matrix)>,
    /// Changes of the output, in this order.
    pub(super) columns: Vec<(Range<usize>, ColumnFold)>,
}

/// A change of some output columns of a linear layer.
#[derive(Clone, Debug)]
pub(super) enum ColumnFold {
    /// Each column is divided by a value.
    Divide(Vec<f64>),
    /// Each head, a run of as many columns as the matrix has rows, is multiplied by the matrix.
    Heads(Matrix),
}

impl LinearFold {
    /// The new weight `[n_rows, n_columns]`.
    pub(super) fn fold_weight(&self, weight: &[f32], n_columns: usize) -> Vec<f32> {
        let mut data: Vec<f64> = weight.iter().map(|x| f64::from(*x)).collect();
        if let Some(scale) = &self.row_scale {
            for (row, factor) in data.chunks_mut(n_columns).zip(scale) {
                row.iter_mut().for_each(|x| *x *= factor);
            }
        }
        if let Some((left, right)) = &self.row_matrices {
            multiply_rows(&mut data, n_columns, left, right);
        }
        self.fold_columns(&mut data, n_columns);
        data.into_iter().map(|x| x as f32).collect()
    }

    /// Whether the bias changes too.
    pub(super) fn changes_bias(&self) -> bool {
        self.row_shift.is_some() || !self.columns.is_empty()
    }

    /// The new bias `[n_columns]`. `weight` is the layer's before its folds.
    pub(super) fn fold_bias(&self, bias: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut data: Vec<f64> = bias.iter().map(|x| f64::from(*x)).collect();
        // x·W + b = (x − δ)·W + (b + δ·W).
        for (shift, row) in self.row_shift.iter().flatten().zip(weight.chunks(bias.len())) {
            data.iter_mut().zip(row).for_each(|(sum, w)| *sum += shift * f64::from(*w));
        }
        self.fold_columns(&mut data, bias.len());
        data.into_iter().map(|x| x as f32).collect()
    }

    fn fold_columns(&self, data: &mut [f64], n_columns: usize) {
        for (range, fold) in &self.columns {
            match fold {
                ColumnFold::Heads(matrix) => {
                    multiply_heads(data, n_columns, range.start, range.len(), matrix);
                }
                ColumnFold::Divide(by) => {
                    for row in data.chunks_mut(n_columns) {
                        row[range.clone()].iter_mut().zip(by).for_each(|(x, by)| *x /= by);
                    }
                }
            }
        }
    }
}
