//! `Gelu` (opset 20) and com.microsoft's `BiasGelu`, `FastGelu` (tanh form, with a bias) and
//! `QuickGelu` (x · sigmoid(α·x)); and planish's operator for the gradient of the first two.

use planish_ir::Tensor;

use super::support::{Dense, facts};
use crate::op::{optional, required};
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

pub(in crate::ops) mod cpu;
pub(in crate::ops) mod cuda;
pub(in crate::ops) mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Gelu", infer, gelu).with_cpu(cpu::gelu).with_cuda(cuda::cuda).with_grad(grad::gelu),
    OpDef::new("Gelu", infer, gelu)
        .with_cpu(cpu::gelu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::gelu)
        .in_domain(MICROSOFT),
    OpDef::new("BiasGelu", infer, bias_gelu).in_domain(MICROSOFT),
    OpDef::new("FastGelu", infer, fast_gelu)
        .with_cpu(cpu::fast_gelu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::fast_gelu)
        .in_domain(MICROSOFT),
    OpDef::new("QuickGelu", infer, quick_gelu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::quick_gelu)
        .in_domain(MICROSOFT),
    grad::OP,
];

/// α of `QuickGelu` where the node names none.
const QUICK_ALPHA: f32 = 1.702;

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::same_as_first(inputs)
}

fn gelu(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    match op.node.str("approximate", "none") {
        "none" => map(inputs, exact),
        "tanh" => map(inputs, by_tanh),
        other => Err(OpError::unsupported(format!("approximate = \"{other}\" is unknown"))),
    }
}

fn fast_gelu(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    map(&[Some(biased(inputs)?)], by_tanh)
}

fn bias_gelu(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    map(&[Some(biased(inputs)?)], exact)
}

/// The first input, plus the second if there is one.
fn biased(inputs: &[Option<Tensor>]) -> Result<Tensor, OpError> {
    let x = required(inputs, 0)?;
    let Some(bias) = optional(inputs, 1) else { return Ok(x.clone()) };
    let mut sum = Dense::read(x)?;
    sum.combine(&Dense::read(bias)?, |x, bias| x + bias)?;
    sum.into_tensor(x.dtype())
}

fn quick_gelu(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let alpha = f64::from(op.node.float("alpha", QUICK_ALPHA));
    map(inputs, |x| x * sigmoid(alpha * x))
}

/// Applies `f` to every element of the first input.
pub(in crate::ops) fn map(
    inputs: &[Option<Tensor>],
    f: impl Fn(f64) -> f64,
) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let mut y = Dense::read(x)?;
    y.data.iter_mut().for_each(|v| *v = f(f64::from(*v)) as f32);
    Ok(vec![y.into_tensor(x.dtype())?])
}

/// 1 / (1 + e⁻ˣ).
pub(in crate::ops) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn exact(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

fn by_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

/// The error function, 2/√π · Σ (−1)ⁿ x²ⁿ⁺¹ / (n! (2n + 1)), in its form with positive terms:
/// e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1·3·…·(2n + 1)).
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}
