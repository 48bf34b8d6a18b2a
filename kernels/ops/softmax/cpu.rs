//! The fast form of `Softmax`, for groups that lie together.

use planish_cpu::{Isa, softmax_rows};
use planish_ir::Tensor;

use super::groups;
use crate::ops::support::{fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run, super::softmax)
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let (Some(x), Some(data)) = (fast::input(inputs, 0), fast::f32s(inputs, 0)) else {
        return Ok(None);
    };
    let (_, n, step) = groups(op, x.shape())?;
    if step != 1 || n == 0 {
        return Ok(None);
    }
    let y = rows::f32_output(context, x.shape().to_vec(), |y| {
        softmax_rows(context.pool, Isa::best(), &data, n, y);
    })?;
    Ok(Some(vec![y]))
}
