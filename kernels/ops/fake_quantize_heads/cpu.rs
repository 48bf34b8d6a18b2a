//! The fast forms of `FakeQuantizeHeads` and its gradient.

use planish_cpu::{Clip, Isa, fake_quantize_heads_grad, quantize_dequantize_heads};
use planish_ir::Tensor;

use super::{head_size, n_heads};
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

fn clip(quantiser: &Quantiser) -> Clip {
    Clip { min: quantiser.clip_min, max: quantiser.clip_max }
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let x = required(inputs, 0)?;
    let quantiser = fake_quantize::quantiser(op, required(inputs, 1)?, required(inputs, 2)?)?;
    let Some(data) = fast::f32s(inputs, 0) else { return Ok(None) };
    let (size, bits) = (head_size(op)?, quantiser.bits);
    let heads = n_heads(x.shape().last().copied().unwrap_or(1), size)?;
    let y = rows::f32_output(context, x.shape().to_vec(), |y| {
        let (pool, isa) = (context.pool, Isa::best());
        quantize_dequantize_heads(pool, isa, &data, heads, size, bits, clip(&quantiser), y);
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
    let quantiser = fake_quantize::quantiser(op, clip_max, clip_min)?;
    let [Some(dy), Some(data)] = [0, 1].map(|i| fast::f32s(inputs, i)) else { return Ok(None) };
    let (size, bits) = (head_size(op)?, quantiser.bits);
    n_heads(x.shape().last().copied().unwrap_or(1), size)?;
    let mut dx = context.f32s(data.len())?;
    let (pool, isa, clip) = (context.pool, Isa::best(), clip(&quantiser));
    let of_clip = fake_quantize_heads_grad(pool, isa, &dy, &data, size, bits, clip, dx.as_mut());
    let dx = context.f32_tensor(dx, x.shape().to_vec())?;
    let of_max = Tensor::from_vec(clip_max.shape(), vec![of_clip.max]);
    let of_min = Tensor::from_vec(clip_min.shape(), vec![of_clip.min]);
    Ok(Some(vec![dx, of_max, of_min]))
}
