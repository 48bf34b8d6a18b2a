//! `Swish` (opset 24): x · sigmoid(α · x); and planish's operator for its gradient.

use planish_ir::Tensor;

use super::gelu::{cpu::swish, map, sigmoid};
use super::support::facts;
use crate::{Fact, Kernel, OpDef, OpError, OpNode};

pub(in crate::ops) mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Swish", infer, eval)
        .with_cpu(cpu)
        .with_cuda(super::gelu::cuda::cuda)
        .with_grad(grad::rule),
    grad::OP,
];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::same_as_first(inputs)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let alpha = f64::from(op.node.float("alpha", 1.0));
    map(inputs, |x| x * sigmoid(alpha * x))
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    if op.node.float("alpha", 1.0) == 1.0 { swish(op, eval) } else { Ok(None) }
}
