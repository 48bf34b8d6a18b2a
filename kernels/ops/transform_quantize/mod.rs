//! planish's `TransformQuantize` and `TransformLeftQuantize`: each row, taken as X̃ `[n1, n2]`,
//! becomes P1ᵀ · X̃ · P2 (or P1ᵀ · X̃) and is quantised as by `DynamicQuantize`.

use planish_ir::{Function, Tensor};

use super::dynamic_quantize::{code_facts, quantise_rows};
use super::support::body::{self, Body};
use super::support::kronecker::{self, Kronecker};
use super::support::quant::Quantiser;
use super::support::{Dense, facts};
use crate::op::{optional, required};
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("TransformQuantize", infer_both, eval)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_function(both),
    OpDef::new("TransformLeftQuantize", infer_left, eval)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_function(left),
];

fn infer_both(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    infer(op, inputs, Some(facts::required(inputs, 2)?))
}

fn infer_left(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    infer(op, inputs, None)
}

fn infer(op: &OpNode, inputs: &[Fact], p2: Option<&Fact>) -> Result<Vec<Fact>, OpError> {
    Quantiser::read(op)?;
    let x = facts::required(inputs, 0)?;
    kronecker::check(x, facts::required(inputs, 1)?, p2)?;
    Ok(code_facts(x))
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = Dense::read(required(inputs, 0)?)?;
    let transform = Kronecker::new(x.last(), required(inputs, 1)?, optional(inputs, 2))?;
    let quantiser = Quantiser::read(op)?;
    quantise_rows(&x, |row| quantiser.symmetric(&transform.apply(row)))
}

fn both() -> Function {
    let (mut body, inputs) = Body::new("TransformQuantize", &["X", "P1", "P2"]);
    let y = body::transform(&mut body, inputs[0], inputs[1], Some(inputs[2]));
    let (codes, scale) = body::quantize(&mut body, y);
    body.finish(&[(codes, "codes"), (scale, "scale")])
}

fn left() -> Function {
    let (mut body, inputs) = Body::new("TransformLeftQuantize", &["X", "P1"]);
    let y = body::transform(&mut body, inputs[0], inputs[1], None);
    let (codes, scale) = body::quantize(&mut body, y);
    body.finish(&[(codes, "codes"), (scale, "scale")])
}
