//! The engine's `SwiGLUTransformQuantize`: `SwiGLU`, `Transform` and `DynamicQuantize` of each row
//! in one pass. Inputs: gate, up, P1, P2; an absent factor is the identity.

use planish_ir::Tensor;

use super::norm_transform_quantize::{infer_transformed, transform_and_quantise};
use super::support::facts;
use super::swiglu::gated;
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("SwiGLUTransformQuantize", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (gate, up) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    facts::same_size("the second factor", gate.dim(-1), up.dim(-1))?;
    infer_transformed(op, inputs)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let y = gated(required(inputs, 0)?, required(inputs, 1)?)?;
    transform_and_quantise(op, &y, inputs)
}
