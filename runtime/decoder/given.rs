//! What a run is given.

use planish_ir::Tensor;

/// Tokens of a run, `[batch, length]` row-major.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub ids: &'a [u32],
    /// As many tokens to score, each by the logits of the one at its place; nothing where no scores are
    /// wanted.
    pub targets: Option<&'a [u32]>,
}

impl<'a> Given<'a> {
    /// Tokens that are fed alone.
    pub fn ids(ids: &'a [u32]) -> Self {
        Self { ids, targets: None }
    }
}

/// Columns `start..end` of `ids`, which has `rows` rows.
pub(super) fn columns(ids: &[u32], rows: usize, start: usize, end: usize) -> Vec<u32> {
    let width = ids.len() / rows.max(1);
    (0..rows).flat_map(|row| &ids[row * width + start..row * width + end]).copied().collect()
}

/// `ids`, rows of `length`, with `n` zeros before each row.
pub(super) fn after_zeros(ids: &[u32], length: usize, n: usize) -> Vec<u32> {
    let row = |row: &[u32]| [&vec![0; n][..], row].concat();
    ids.chunks(length.max(1)).flat_map(row).collect()
}

/// Scores as they are told: NaN is none.
pub(super) fn told(scores: Vec<f32>) -> Vec<Option<f64>> {
    scores.into_iter().map(|x| (!x.is_nan()).then_some(f64::from(x))).collect()
}

/// `[batch, positions]` as `[batch, positions, 1]`; another rank stays.
pub(super) fn as_logits(scores: &Tensor) -> Tensor {
    let shape = [scores.shape(), &[1]].concat();
    scores.reshaped(shape).unwrap_or_else(|_| scores.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_and_lengthened_each_by_itself() {
        let ids = [1, 2, 3, 4, 5, 6];
        assert_eq!(columns(&ids, 2, 1, 3), [2, 3, 5, 6]);
        assert_eq!(after_zeros(&ids, 3, 2), [0, 0, 1, 2, 3, 0, 0, 4, 5, 6]);
        assert_eq!(after_zeros(&ids, 3, 0), ids);
    }
}
