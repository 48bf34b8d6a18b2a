//! The differentiable quantisers on the device.

use planish_cuda::elementwise::{FakeQuantize, FakeQuantizeGrad, Number, Reduce, reduce};
use planish_ir::DataType;

use super::cuda::{Outputs, cast, like, number};
use super::quant::Quantiser;
use crate::{CudaContext, CudaInputs, GpuTensor, OpError, OpNode};

/// How the elements of a tensor form groups that share a scale.
pub(in crate::ops) struct CudaGroups {
    /// Number of groups.
    pub len: usize,
    /// Elements of a group.
    pub n: usize,
    /// Distance of a group's elements.
    pub step: usize,
    /// The shape of the clips of groups; `None` where all share one.
    pub clips: Option<Vec<usize>>,
    /// With a zero point.
    pub is_asymmetric: bool,
}

/// Y of X, clip_max, clip_min; with `is_grad` the gradients of these, of dY and these.
pub(in crate::ops) fn run(
    op: &OpNode,
    context: &CudaContext,
    inputs: CudaInputs<'_>,
    is_grad: bool,
    groups: &CudaGroups,
) -> Outputs {
    let first = usize::from(is_grad);
    let (x, clip_max) = (inputs.device(first)?, inputs.device(first + 1)?);
    let clip_min = inputs.device(first + 2)?;
    for clip in [clip_max, clip_min] {
        let fits = match &groups.clips {
            Some(shape) => clip.shape() == shape,
            None => clip.n_elements() == 1,
        };
        if !fits {
            return Err(OpError::shape(format!("clips of shape {:?}", clip.shape())));
        }
    }
    let quantize = FakeQuantize {
        x: x.ptr(),
        clip_max: clip_max.ptr(),
        clip_min: clip_min.ptr(),
        clips_by_group: groups.clips.is_some(),
        groups: groups.len,
        n: groups.n,
        step: groups.step,
        bits: Quantiser::read(op)?.bits,
        is_asymmetric: groups.is_asymmetric,
    };
    let (y, number) = (like(context, x)?, number(x.dtype())?);
    if !is_grad {
        quantize.run(context.gpu, number, y.ptr(), None)?;
        return Ok(vec![y]);
    }
    let dy = inputs.device(0)?;
    if dy.shape() != x.shape() {
        let (dy, x) = (dy.shape(), x.shape());
        return Err(OpError::shape(format!("a gradient {dy:?} of values {x:?}")));
    }
    let sums = || context.tensor(DataType::F32, vec![groups.len]);
    let (of_max, of_min) = (sums()?, sums()?);
    let grad = FakeQuantizeGrad { dy: dy.ptr(), of_max: of_max.ptr(), of_min: of_min.ptr() };
    quantize.run(context.gpu, number, y.ptr(), Some(grad))?;
    let of_clip = |sums: &GpuTensor, clip: &GpuTensor| -> Result<GpuTensor, OpError> {
        let sums = match groups.clips {
            Some(_) => sums.clone(),
            None => {
                let total = context.tensor(DataType::F32, vec![1])?;
                let (how, all) = ((Reduce::Sum, Number::F32), (sums.ptr(), sums.shape()));
                reduce(context.gpu, how, all, &[true], total.ptr())?;
                total
            }
        };
        cast(context, &sums, clip.dtype())?.reshaped(clip.shape().to_vec())
    };
    let (of_max, of_min) = (of_clip(&of_max, clip_max)?, of_clip(&of_min, clip_min)?);
    Ok(vec![y, of_max, of_min])
}
