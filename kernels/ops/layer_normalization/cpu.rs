//! The fast form of `LayerNormalization`, for weights of the size of the normalised part.

use planish_cpu::{Isa, layer_norm};
use planish_ir::Tensor;

use super::EPSILON;
use crate::ops::support::{facts, fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    if op.wants(1) || op.wants(2) {
        return Ok(None);
    }
    fast::kernel(op, run, super::eval)
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let (Some(x), Some(data)) = (fast::input(inputs, 0), fast::f32s(inputs, 0)) else {
        return Ok(None);
    };
    let axis = facts::axis(op.node.int("axis", -1), x.shape().len(), false)?;
    let n: usize = x.shape()[axis..].iter().product();
    let (scale, bias) = (fast::f32s(inputs, 1), fast::f32s(inputs, 2));
    let bias_fits = match fast::input(inputs, 2) {
        Some(_) => bias.as_ref().is_some_and(|bias| bias.len() == n),
        None => true,
    };
    let Some(scale) = scale.filter(|scale| scale.len() == n && n > 0 && bias_fits) else {
        return Ok(None);
    };
    let epsilon = op.node.float("epsilon", EPSILON);
    let y = rows::f32_output(context, x.shape().to_vec(), |y| {
        let (pool, isa) = (context.pool, Isa::best());
        layer_norm(pool, isa, &data, None, &scale, bias.as_deref(), epsilon, y);
    })?;
    Ok(Some(vec![y]))
}
