//! Tokens that the graph chose itself.

use planish_ir::Tensor;
use planish_kernels::OpError;

use crate::ModelError;
use crate::engine::EngineError;

/// The token of each sequence, from the last position of `tokens` INT64 and `logits` f32, both
/// `[batch, positions, 1]`.
///
/// # Errors
/// [`ModelError::NotFinite`] where such a logit is none; other shapes.
pub(super) fn last_tokens(
    tokens: &Tensor,
    logits: &Tensor,
    batch: usize,
) -> Result<Vec<u32>, ModelError> {
    let fail = |error: OpError| {
        let node = "of the likeliest token".to_owned();
        ModelError::engine(EngineError::Run { node, error })
    };
    let ids = tokens.as_slice::<i64>().map_err(|e| fail(e.into()))?;
    let values = logits.to_f32_vec().map_err(|e| fail(e.into()))?;
    if batch == 0
        || ids.len() < batch
        || !ids.len().is_multiple_of(batch)
        || values.len() != ids.len()
    {
        let shapes = (tokens.shape(), logits.shape());
        return Err(fail(OpError::shape(format!("{shapes:?} for {batch} sequences"))));
    }
    let n = ids.len() / batch;
    let last = (0..batch).map(|row| (row + 1) * n - 1);
    last.map(|at| match u32::try_from(ids[at]) {
        Ok(id) if values[at].is_finite() => Ok(id),
        _ => Err(ModelError::NotFinite),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(values: &[f32], batch: usize) -> Result<Vec<u32>, ModelError> {
        let shape = [batch, values.len() / batch, 1];
        let ids = (0..values.len() as i64).collect();
        last_tokens(
            &Tensor::from_vec(&shape, ids),
            &Tensor::from_vec(&shape, values.to_vec()),
            batch,
        )
    }

    #[test]
    fn the_last_position_of_each_sequence_counts() {
        assert_eq!(tokens(&[f32::NAN, 1.0, 2.0, 3.0], 2).unwrap(), [1, 3]);
        assert_eq!(tokens(&[1.0], 1).unwrap(), [0]);
    }

    #[test]
    fn logits_that_are_not_finite_choose_nothing() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(matches!(tokens(&[0.0, bad], 1), Err(ModelError::NotFinite)));
        }
        let (ids, logits) =
            (Tensor::from_vec(&[1], vec![0i64]), Tensor::from_vec(&[2], vec![0f32; 2]));
        assert!(matches!(last_tokens(&ids, &logits, 1), Err(ModelError::Engine(_))));
    }
}
