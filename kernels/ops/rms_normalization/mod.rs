//! `RMSNormalization` (opset 23): x / √(mean(x²) + ε) · scale over the axes from `axis` on;
//! and planish's operator for its gradient.

use planish_ir::Tensor;

use super::support::{Dense, dense, facts};
use crate::op::required;
use crate::{Fact, OpDef, OpError, OpNode};

pub(in crate::ops) mod cpu;
pub(in crate::ops) mod cuda;
pub(in crate::ops) mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("RMSNormalization", infer, eval)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::rule),
    grad::OP,
];

/// ε where the node names none.
pub(in crate::ops) const EPSILON: f32 = 1e-5;

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::required(inputs, 1)?;
    facts::same_as_first(inputs)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let (mut y, scale) = (Dense::read(x)?, Dense::read(required(inputs, 1)?)?);
    let axis = facts::axis(op.node.int("axis", -1), y.shape.len(), false)?;
    let n = y.shape[axis..].iter().product::<usize>().max(1);
    let epsilon = op.node.float("epsilon", EPSILON);
    for row in y.data.chunks_exact_mut(n) {
        let inverse = inverse_rms(row, epsilon);
        row.iter_mut().for_each(|v| *v *= inverse);
    }
    y.combine(&scale, |y, scale| y * scale)?;
    Ok(vec![y.into_tensor(x.dtype())?])
}

/// 1 / √(mean(x²) + ε).
pub(in crate::ops) fn inverse_rms(row: &[f32], epsilon: f32) -> f32 {
    let mean = dense::dot(row, row) / row.len() as f64;
    (1.0 / (mean + f64::from(epsilon)).sqrt()) as f32
}
