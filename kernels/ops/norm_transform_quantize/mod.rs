//! The engine's `NormTransformQuantize`: RMS normalisation, `Transform` and `DynamicQuantize` of
//! each row in one pass. Inputs: x, the norm's weight, P1, P2; an absent factor is the identity.

use planish_ir::Tensor;

use super::add_rms_norm::normalised;
use super::dynamic_quantize::{code_facts, quantise_rows};
use super::rms_normalization::EPSILON;
use super::support::kronecker::{self, Kronecker};
use super::support::quant::Quantiser;
use super::support::{Dense, facts};
use crate::op::{optional, required};
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("NormTransformQuantize", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (x, weight) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    facts::same_size("the weight", x.dim(-1), weight.dim(0))?;
    infer_transformed(op, inputs)
}

/// Codes and scales of the transformed rows of input 0, with factors at 2 and 3.
pub(in crate::ops) fn infer_transformed(
    op: &OpNode,
    inputs: &[Fact],
) -> Result<Vec<Fact>, OpError> {
    Quantiser::read(op)?;
    let x = facts::required(inputs, 0)?;
    if let Some(p1) = facts::optional(inputs, 2) {
        kronecker::check(x, p1, facts::optional(inputs, 3))?;
    }
    Ok(code_facts(x))
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = Dense::read(required(inputs, 0)?)?;
    let epsilon = op.node.float("epsilon", EPSILON);
    transform_and_quantise(op, &normalised(&x, required(inputs, 1)?, epsilon)?, inputs)
}

/// Codes and scales of the rows of `x`, transformed by inputs 2 and 3.
pub(in crate::ops) fn transform_and_quantise(
    op: &OpNode,
    x: &Dense,
    inputs: &[Option<Tensor>],
) -> Result<Vec<Tensor>, OpError> {
    let transform = Kronecker::optional(x.last(), optional(inputs, 2), optional(inputs, 3))?;
    let quantiser = Quantiser::read(op)?;
    quantise_rows(x, |row| match &transform {
        Some(transform) => quantiser.symmetric(&transform.apply(row)),
        None => quantiser.symmetric(row),
    })
}
