//! The engine's `NegativeLogLikelihood`: of each position ln Σ exp(logits) − logits[target], NaN
//! where that is no number. Logits `[..., V]` of any float type, targets INT64 `[...]`, result f32
//! `[...]`.

use planish_ir::{DataType, Tensor};

use super::support::{Dense, facts};
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("NegativeLogLikelihood", infer, eval).in_domain(DOMAIN).with_cuda(cuda::cuda)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (logits, targets) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    let floats = [DataType::F32, DataType::F16, DataType::BF16, DataType::F64];
    facts::of_type("the logits", logits, &floats)?;
    facts::of_type("the targets", targets, &[DataType::I64])?;
    let Some(shape) = &logits.shape else {
        return Ok(vec![Fact::new(Some(DataType::F32), targets.shape.clone())]);
    };
    let Some((_, positions)) = shape.split_last() else { return Err(misfit(shape, &[])) };
    if let Some(of_targets) = &targets.shape {
        if of_targets.len() != positions.len() {
            return Err(misfit(shape, of_targets));
        }
        for (a, b) in positions.iter().zip(of_targets) {
            facts::same_size("an axis of the targets", Some(a), Some(b))?;
        }
    }
    Ok(vec![Fact::new(Some(DataType::F32), Some(positions.to_vec()))])
}

fn misfit<D: std::fmt::Debug>(logits: &[D], targets: &[D]) -> OpError {
    OpError::shape(format!("targets {targets:?} do not belong to logits {logits:?}"))
}

/// Fails unless there is one target for each row of logits.
fn check_shapes(logits: &[usize], targets: &[usize]) -> Result<(), OpError> {
    match logits.split_last() {
        Some((_, positions)) if positions == targets => Ok(()),
        _ => Err(misfit(logits, targets)),
    }
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (logits, targets) = (Dense::read(required(inputs, 0)?)?, required(inputs, 1)?);
    check_shapes(&logits.shape, targets.shape())?;
    let n = logits.last();
    let score = |(row, target): (usize, &i64)| score(&logits.data[row * n..][..n], *target);
    let scores = targets.as_slice::<i64>()?.iter().enumerate().map(score).collect();
    Ok(vec![Tensor::from_vec(targets.shape(), scores)])
}

/// −ln softmax(row)[target], in f64.
fn score(row: &[f32], target: i64) -> f32 {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let logit = usize::try_from(target).ok().and_then(|at| row.get(at));
    let (true, Some(logit)) = (largest.is_finite(), logit) else { return f32::NAN };
    let (largest, logit) = (f64::from(largest), f64::from(*logit));
    // A NaN makes the sum NaN.
    let sum: f64 = row.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
    (largest - logit + sum.ln()) as f32
}
