//! `LayerNormalization` (opset 17): (x − mean) / √(variance + ε) · scale + bias over the axes
//! from `axis` on; also gives mean and inverse standard deviation. And planish's
//! operator for its gradient.

use planish_ir::{DataType, Dim, Tensor};

use super::support::{Dense, dense, facts};
use crate::op::{optional, required};
use crate::{Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("LayerNormalization", infer, eval)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::rule),
    grad::OP,
];

/// ε where the node names none.
const EPSILON: f32 = 1e-5;

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::required(inputs, 1)?;
    let x = facts::required(inputs, 0)?;
    let mut statistics = x.shape.clone();
    if let Some(shape) = &mut statistics {
        let axis = facts::axis(op.node.int("axis", -1), shape.len(), false)?;
        shape[axis..].fill(Dim::from(1i64));
    }
    let statistics = Fact::new(Some(DataType::F32), statistics);
    Ok([facts::like(x), statistics.clone(), statistics].into_iter().take(op.n_outputs()).collect())
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let mut y = Dense::read(x)?;
    let axis = facts::axis(op.node.int("axis", -1), y.shape.len(), false)?;
    let n = y.shape[axis..].iter().product::<usize>().max(1);
    let epsilon = op.node.float("epsilon", EPSILON);
    let statistics: Vec<(f32, f32)> =
        y.data.chunks_exact_mut(n).map(|row| normalise(row, epsilon)).collect();
    affine(&mut y, required(inputs, 1)?, optional(inputs, 2))?;
    let mut shape = y.shape.clone();
    shape[axis..].fill(1);
    let mean = statistics.iter().map(|(mean, _)| *mean).collect();
    let inverse = statistics.iter().map(|(_, inverse)| *inverse).collect();
    let outputs = [
        y.into_tensor(x.dtype())?,
        dense::of_f32(DataType::F32, &shape, mean)?,
        dense::of_f32(DataType::F32, &shape, inverse)?,
    ];
    Ok(outputs.into_iter().take(op.n_outputs()).collect())
}

/// Takes a row to mean 0 and variance 1; returns its mean and inverse standard deviation.
pub(in crate::ops) fn normalise(row: &mut [f32], epsilon: f32) -> (f32, f32) {
    let n = row.len() as f64;
    let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    let inverse = 1.0 / (variance + f64::from(epsilon)).sqrt();
    row.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * inverse) as f32);
    (mean as f32, inverse as f32)
}

/// y · scale + bias, both broadcast.
pub(in crate::ops) fn affine(
    y: &mut Dense,
    scale: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(), OpError> {
    y.combine(&Dense::read(scale)?, |y, scale| y * scale)?;
    bias.map_or(Ok(()), |bias| y.combine(&Dense::read(bias)?, |y, bias| y + bias))
}
