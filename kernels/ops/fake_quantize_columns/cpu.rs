//! The fast forms of `FakeQuantizeColumns` and its gradient.

use planish_cpu::{
    ColumnClips, ColumnClipsMut, ColumnSpec, Isa, fake_quantize_columns, fake_quantize_columns_grad,
};
use planish_ir::Tensor;

use super::{Groups, block_size};
use crate::kernel::required;
use crate::ops::support::quant::Quantiser;
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

/// The fast form's spec; `None` for a matrix without elements.
fn spec(op: &OpNode, w: &Tensor, clips: [&Tensor; 2]) -> Result<Option<ColumnSpec>, OpError> {
    Groups::new(op, w, clips)?;
    let (bits, block) = (Quantiser::read(op)?.bits, block_size(op)?);
    let n = w.shape().last().copied().unwrap_or(0);
    Ok((w.n_elements() > 0).then_some(ColumnSpec { n, block, bits }))
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let w = required(inputs, 0)?;
    let spec = spec(op, w, [required(inputs, 1)?, required(inputs, 2)?])?;
    let data = [0, 1, 2].map(|i| fast::f32s(inputs, i));
    let (Some(spec), [Some(data), Some(max), Some(min)]) = (spec, data) else { return Ok(None) };
    let y = rows::f32_output(context, w.shape().to_vec(), |y| {
        let (pool, isa) = (context.pool, Isa::best());
        fake_quantize_columns(pool, isa, &data, spec, ColumnClips { max: &max, min: &min }, y);
    })?;
    Ok(Some(vec![y]))
}

fn run_grad(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let (dy, w, clip) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
    fake_quantize::check_gradient(dy, w)?;
    let spec = spec(op, w, [clip, required(inputs, 3)?])?;
    let data = [0, 1, 2, 3].map(|i| fast::f32s(inputs, i));
    let (Some(spec), [Some(dy), Some(data), Some(max), Some(min)]) = (spec, data) else {
        return Ok(None);
    };
    let mut dw = context.f32s(data.len())?;
    let (mut of_max, mut of_min) = (context.f32s(max.len())?, context.f32s(min.len())?);
    let clips = ColumnClips { max: &max, min: &min };
    let of_clips = ColumnClipsMut { max: of_max.as_mut(), min: of_min.as_mut() };
    let (pool, isa) = (context.pool, Isa::best());
    fake_quantize_columns_grad(pool, isa, &dy, &data, spec, clips, dw.as_mut(), of_clips);
    let dw = context.f32_tensor(dw, w.shape().to_vec())?;
    let of_max = context.f32_tensor(of_max, clip.shape().to_vec())?;
    Ok(Some(vec![dw, of_max, context.f32_tensor(of_min, clip.shape().to_vec())?]))
}
