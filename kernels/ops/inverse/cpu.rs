//! The fast form of `Inverse`.

use planish_cpu::{Isa, inverse};
use planish_ir::Tensor;

use super::{singular, size};
use crate::kernel::required;
use crate::ops::support::fast;
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run, super::eval)
}

fn run(
    _: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let x = required(inputs, 0)?;
    let n = size(x)?;
    let Some(data) = fast::f32s(inputs, 0) else { return Ok(None) };
    let mut y = context.f32s(data.len())?;
    let elements = (n * n).max(1);
    let matrices = y.as_mut::<f32>().chunks_exact_mut(elements).zip(data.chunks_exact(elements));
    for (y, x) in matrices {
        inverse(context.pool, Isa::best(), x, n, y).map_err(singular)?;
    }
    Ok(Some(vec![context.f32_tensor(y, x.shape().to_vec())?]))
}
