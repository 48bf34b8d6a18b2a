//! The engine's `AddRMSNorm`: sum = x + skip, and the RMS normalisation of it.

use planish_ir::Tensor;

use super::rms_normalization::{EPSILON, inverse_rms};
use super::support::{Dense, facts};
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("AddRMSNorm", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (x, skip) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    facts::same_size("the skip", x.dim(-1), skip.dim(-1))?;
    facts::same_size("the weight", x.dim(-1), facts::required(inputs, 2)?.dim(0))?;
    Ok(vec![facts::like(x), facts::like(x)])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let mut sum = Dense::read(x)?;
    sum.combine(&Dense::read(required(inputs, 1)?)?, |x, skip| x + skip)?;
    let epsilon = op.node.float("epsilon", EPSILON);
    let norm = normalised(&sum, required(inputs, 2)?, epsilon)?;
    Ok(vec![norm.into_tensor(x.dtype())?, sum.into_tensor(x.dtype())?])
}

/// The RMS normalisation of the rows of `x` with a weight.
pub(in crate::ops) fn normalised(
    x: &Dense,
    weight: &Tensor,
    epsilon: f32,
) -> Result<Dense, OpError> {
    let mut y = x.clone();
    for row in y.data.chunks_exact_mut(x.last().max(1)) {
        let inverse = inverse_rms(row, epsilon);
        row.iter_mut().for_each(|v| *v *= inverse);
    }
    y.combine(&Dense::read(weight)?, |y, weight| y * weight)?;
    Ok(y)
}
