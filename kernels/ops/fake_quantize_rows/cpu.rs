//! The fast forms of `FakeQuantizeRows` and its gradient.

use planish_cpu::{Isa, fake_quantize_rows, fake_quantize_rows_grad};
use planish_ir::Tensor;

use crate::kernel::required;
use crate::ops::support::{fake_quantize, fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run, super::eval)
}

pub(super) fn cpu_grad(
    op: &OpNode,
    _: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run_grad, super::eval_grad)
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let x = required(inputs, 0)?;
    let spec = fake_quantize::quantiser(op, required(inputs, 1)?, required(inputs, 2)?)?.spec();
    let Some(data) = fast::f32s(inputs, 0) else { return Ok(None) };
    let n = x.shape().last().copied().unwrap_or(1);
    let y = rows::f32_output(context, x.shape().to_vec(), |y| {
        fake_quantize_rows(context.pool, Isa::best(), &data, n, spec, y);
    })?;
    Ok(Some(vec![y]))
}

fn run_grad(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let (dy, x) = (required(inputs, 0)?, required(inputs, 1)?);
    let (clip_max, clip_min) = (required(inputs, 2)?, required(inputs, 3)?);
    fake_quantize::check_gradient(dy, x)?;
    let spec = fake_quantize::quantiser(op, clip_max, clip_min)?.spec();
    let [Some(dy), Some(data)] = [0, 1].map(|i| fast::f32s(inputs, i)) else { return Ok(None) };
    let n = x.shape().last().copied().unwrap_or(1);
    let mut dx = context.f32s(data.len())?;
    let (pool, isa) = (context.pool, Isa::best());
    let of_clip = fake_quantize_rows_grad(pool, isa, &dy, &data, n, spec, dx.as_mut());
    let dx = context.f32_tensor(dx, x.shape().to_vec())?;
    let of_max = Tensor::from_vec(clip_max.shape(), vec![of_clip.max]);
    let of_min = Tensor::from_vec(clip_min.shape(), vec![of_clip.min]);
    Ok(Some(vec![dx, of_max, of_min]))
}
