//! planish's `Transform` and `TransformLeft`: each row, taken as X̃ `[n1, n2]`, becomes
//! P1ᵀ · X̃ · P2 (or P1ᵀ · X̃, with n2 = n / n1). And the operators for their gradients.

use planish_ir::{Function, Tensor};

use super::support::body::{self, Body};
use super::support::kronecker::{self, Kronecker};
use super::support::{Dense, dense, facts};
use crate::op::{optional, required};
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda_grad;
mod grad;
mod grad_cpu;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Transform", infer_both, eval)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu)
        .with_cuda(super::transform_quantize::cuda::values)
        .with_function(both)
        .with_grad(grad::rule),
    OpDef::new("TransformLeft", infer_left, eval)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu)
        .with_cuda(super::transform_quantize::cuda::values)
        .with_function(left)
        .with_grad(grad::rule),
    grad::BOTH,
    grad::LEFT,
];

fn infer_both(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    infer(inputs, Some(facts::required(inputs, 2)?))
}

fn infer_left(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    infer(inputs, None)
}

fn infer(inputs: &[Fact], p2: Option<&Fact>) -> Result<Vec<Fact>, OpError> {
    kronecker::check(facts::required(inputs, 0)?, facts::required(inputs, 1)?, p2)?;
    facts::same_as_first(inputs)
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let rows = Dense::read(x)?;
    let transform = Kronecker::new(rows.last(), required(inputs, 1)?, optional(inputs, 2))?;
    let data = rows.rows().flat_map(|row| transform.apply(row)).collect();
    Ok(vec![dense::of_f32(x.dtype(), x.shape(), data)?])
}

fn both() -> Function {
    let (mut body, inputs) = Body::new("Transform", &["X", "P1", "P2"]);
    let y = body::transform(&mut body, inputs[0], inputs[1], Some(inputs[2]));
    body.finish(&[(y, "Y")])
}

fn left() -> Function {
    let (mut body, inputs) = Body::new("TransformLeft", &["X", "P1"]);
    let y = body::transform(&mut body, inputs[0], inputs[1], None);
    body.finish(&[(y, "Y")])
}
