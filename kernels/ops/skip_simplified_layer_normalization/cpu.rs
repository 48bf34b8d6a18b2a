//! The fast form of the skip normalisations, where no statistics are wanted.

use planish_cpu::{Isa, Residual, layer_norm, rms_norm};
use planish_ir::{DataType, Tensor};

use super::EPSILON;
use crate::ops::support::fast;
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn simplified(
    op: &OpNode,
    _: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    if op.wants(1) || op.wants(2) {
        return Ok(None);
    }
    fast::kernel(op, run_simplified, super::simplified)
}

pub(super) fn full(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    if op.wants(1) || op.wants(2) {
        return Ok(None);
    }
    fast::kernel(op, run_full, super::full)
}

fn run_simplified(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    if fast::input(inputs, 3).is_some() {
        return Ok(None);
    }
    run(op, context, inputs, |x, residual, weight, epsilon, y| {
        rms_norm(context.pool, Isa::best(), x, Some(residual), weight, epsilon, y);
    })
}

fn run_full(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let beta = fast::f32s(inputs, 3);
    let weight_len = fast::f32s(inputs, 2).map_or(0, |weight| weight.len());
    let beta_fits =
        beta.as_ref().map_or(fast::input(inputs, 3).is_none(), |b| b.len() == weight_len);
    if fast::input(inputs, 4).is_some() || !beta_fits {
        return Ok(None);
    }
    run(op, context, inputs, |x, residual, weight, epsilon, y| {
        let (pool, isa) = (context.pool, Isa::best());
        layer_norm(pool, isa, x, Some(residual), weight, beta.as_deref(), epsilon, y);
    })
}

/// Runs a norm with an addition before it, if the shapes are the plain ones.
fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
    norm: impl FnOnce(&[f32], Residual, &[f32], f32, &mut [f32]),
) -> Result<Option<Vec<Tensor>>, OpError> {
    let [x, skip, weight] = [0, 1, 2].map(|i| fast::f32s(inputs, i));
    let (Some(x), Some(add), Some(weight)) = (x, skip, weight) else { return Ok(None) };
    let (tensor, skip) = (fast::input(inputs, 0), fast::input(inputs, 1));
    let shape = tensor.map(|t| t.shape().to_vec()).unwrap_or_default();
    let is_plain = skip.is_some_and(|skip| skip.shape() == shape)
        && shape.last() == Some(&weight.len())
        && !weight.is_empty();
    if !is_plain {
        return Ok(None);
    }
    let (mut y, mut sum) = (context.f32s(x.len())?, context.f32s(x.len())?);
    let residual = Residual { add: &add, sum: sum.as_mut() };
    norm(&x, residual, &weight, op.node.float("epsilon", EPSILON), y.as_mut());
    let none = || Tensor::new(DataType::F32, vec![0], bytes::Bytes::new());
    let y = context.f32_tensor(y, shape.clone())?;
    let outputs = vec![y, none()?, none()?, context.f32_tensor(sum, shape)?];
    Ok(Some(outputs.into_iter().take(op.n_outputs()).collect()))
}
