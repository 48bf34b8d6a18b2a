//! The engine's `SwiGLU`: silu(gate) · up; and the operator for its gradient.

use planish_cpu::{Isa, silu_mul};
use planish_ir::Tensor;

use super::gelu::sigmoid;
use super::support::{Dense, facts, fast, rows};
use crate::op::required;
use crate::{CpuContext, DOMAIN, Fact, Kernel, OpDef, OpError, OpNode};

mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("SwiGLU", infer, eval)
        .in_domain(DOMAIN)
        .with_cpu(cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::rule),
    grad::OP,
];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (gate, up) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    facts::same_size("the second factor", gate.dim(-1), up.dim(-1))?;
    facts::same_as_first(inputs)
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (gate, up) = (required(inputs, 0)?, required(inputs, 1)?);
    Ok(vec![gated(gate, up)?.into_tensor(gate.dtype())?])
}

/// silu(gate) · up.
pub(in crate::ops) fn gated(gate: &Tensor, up: &Tensor) -> Result<Dense, OpError> {
    let mut y = Dense::read(gate)?;
    let silu = |x: f32| (f64::from(x) * sigmoid(f64::from(x))) as f32;
    y.combine(&Dense::read(up)?, |gate, up| silu(gate) * up)?;
    Ok(y)
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run, eval)
}

fn run(
    _: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let [Some(gate), Some(up)] = [0, 1].map(|i| fast::f32s(inputs, i)) else { return Ok(None) };
    let shape = fast::input(inputs, 0).map_or(&[][..], Tensor::shape);
    if fast::input(inputs, 1).map(Tensor::shape) != Some(shape) {
        return Ok(None);
    }
    let y = rows::f32_output(context, shape.to_vec(), |y| {
        silu_mul(context.pool, Isa::best(), &gate, &up, y);
    })?;
    Ok(Some(vec![y]))
}
