//! com.microsoft's `SkipSimplifiedLayerNormalization` and `SkipLayerNormalization`: the sum of
//! input, skip and bias, normalised. Output 3 is the sum.

use planish_ir::{DataType, Dim, Tensor};

use super::layer_normalization::{affine, normalise};
use super::rms_normalization::inverse_rms;
use super::support::{Dense, dense, facts};
use crate::op::{optional, required};
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("SkipSimplifiedLayerNormalization", infer, simplified)
        .in_domain(MICROSOFT)
        .with_cpu(cpu::simplified)
        .with_cuda(cuda::cuda),
    OpDef::new("SkipLayerNormalization", infer, full)
        .in_domain(MICROSOFT)
        .with_cpu(cpu::full)
        .with_cuda(cuda::cuda),
];

/// ε where the node names none.
const EPSILON: f32 = 1e-12;

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::required(inputs, 1)?;
    facts::required(inputs, 2)?;
    let x = facts::required(inputs, 0)?;
    let statistics = Fact::new(Some(DataType::F32), facts::with_last(x, Dim::from(1i64)));
    let outputs = [facts::like(x), statistics.clone(), statistics, facts::like(x)];
    Ok(outputs.into_iter().take(op.n_outputs()).collect())
}

/// Mean and inverse deviation of each row, which the row is normalised with.
type Normalise = fn(&mut [f32], f32) -> (f32, f32);

fn simplified(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let sum = add(inputs, optional(inputs, 3))?;
    let by_rms: Normalise = |row, epsilon| {
        let inverse = inverse_rms(row, epsilon);
        row.iter_mut().for_each(|v| *v *= inverse);
        (0.0, inverse)
    };
    let (mut y, statistics) = rows(op, sum.clone(), by_rms);
    y.combine(&Dense::read(required(inputs, 2)?)?, |y, scale| y * scale)?;
    outputs(op, required(inputs, 0)?.dtype(), y, statistics, sum)
}

fn full(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let sum = add(inputs, optional(inputs, 4))?;
    let (mut y, statistics) = rows(op, sum.clone(), normalise);
    affine(&mut y, required(inputs, 2)?, optional(inputs, 3))?;
    outputs(op, required(inputs, 0)?.dtype(), y, statistics, sum)
}

/// input + skip + bias.
fn add(inputs: &[Option<Tensor>], bias: Option<&Tensor>) -> Result<Dense, OpError> {
    let mut sum = Dense::read(required(inputs, 0)?)?;
    for term in [Some(required(inputs, 1)?), bias].into_iter().flatten() {
        sum.combine(&Dense::read(term)?, |sum, term| sum + term)?;
    }
    Ok(sum)
}

fn rows(op: &OpNode, mut y: Dense, f: Normalise) -> (Dense, Vec<(f32, f32)>) {
    let epsilon = op.node.float("epsilon", EPSILON);
    let n = y.last().max(1);
    let statistics = y.data.chunks_exact_mut(n).map(|row| f(row, epsilon)).collect();
    (y, statistics)
}

fn outputs(
    op: &OpNode,
    dtype: DataType,
    y: Dense,
    statistics: Vec<(f32, f32)>,
    sum: Dense,
) -> Result<Vec<Tensor>, OpError> {
    let mut shape = y.shape.clone();
    shape.pop();
    shape.push(1);
    let (mean, inverse) = statistics.into_iter().unzip();
    let outputs = [
        y.into_tensor(dtype)?,
        dense::of_f32(DataType::F32, &shape, mean)?,
        dense::of_f32(DataType::F32, &shape, inverse)?,
        sum.into_tensor(dtype)?,
    ];
    Ok(outputs.into_iter().take(op.n_outputs()).collect())
}
