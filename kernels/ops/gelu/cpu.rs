//! The fast forms of the GELU operators and of `Swish`.

use planish_cpu::{Isa, ThreadPool, gelu_erf, gelu_tanh, silu};
use planish_ir::Tensor;

use crate::ops::support::{fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn gelu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let run: fast::FastFn = match op.node.str("approximate", "none") {
        "tanh" => |_, context, inputs| run(context, inputs, gelu_tanh),
        _ => |_, context, inputs| run(context, inputs, gelu_erf),
    };
    fast::kernel(op, run, super::gelu)
}

pub(super) fn fast_gelu(
    op: &OpNode,
    _: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let run: fast::FastFn = |_, context, inputs| match fast::input(inputs, 1) {
        Some(_) => Ok(None),
        None => run(context, inputs, gelu_tanh),
    };
    fast::kernel(op, run, super::fast_gelu)
}

/// `Swish` with α = 1.
pub(in crate::ops) fn swish(
    op: &OpNode,
    eval: crate::op::EvalFn,
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, |_, context, inputs| run(context, inputs, silu), eval)
}

type Map = fn(&ThreadPool, Isa, &[f32], &mut [f32]);

fn run(
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
    map: Map,
) -> Result<Option<Vec<Tensor>>, OpError> {
    let (Some(x), Some(data)) = (fast::input(inputs, 0), fast::f32s(inputs, 0)) else {
        return Ok(None);
    };
    let y = rows::f32_output(context, x.shape().to_vec(), |y| {
        map(context.pool, Isa::best(), &data, y);
    })?;
    Ok(Some(vec![y]))
}
