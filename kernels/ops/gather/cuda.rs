//! The CUDA forms. What an index out of bounds names is 0: a kernel can't fail.

use planish_cuda::elementwise::{self, GatherSizes, Tuples};
use planish_ir::Tensor;

use super::nd::split;
use super::rows::gathered;
use crate::ops::common::axes::axis;
use crate::ops::common::index::around;
use crate::ops::support::cuda::{Made, Outputs, indices, kernel, width};
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    let run = match op.node.op_type.as_str() {
        "Gather" => rows,
        "GatherElements" => elements,
        _ => tuples,
    };
    kernel(op, run, &[])
}

fn rows(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (x, at) = (inputs.device(0)?, inputs.device(1)?);
    let axis = axis(op.node.int("axis", 0), x.shape().len())?;
    let (outer, size, inner) = around(x.shape(), axis)?;
    let y = context.tensor(x.dtype(), gathered(x.shape(), at.shape(), axis))?;
    let sizes = GatherSizes { outer, size, inner, n_indices: at.n_elements() };
    elementwise::gather(context.gpu, width(x), x.ptr(), indices(at)?, y.ptr(), sizes)?;
    Ok(vec![y])
}

fn elements(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (x, at) = (inputs.device(0)?, inputs.device(1)?);
    let axis = axis_of_elements(op, x.shape(), at.shape())?;
    let y = context.tensor(x.dtype(), at.shape().to_vec())?;
    let (from, by) = ((x.ptr(), x.shape()), (indices(at)?, at.shape()));
    elementwise::gather_elements(context.gpu, width(x), from, by, axis, y.ptr())?;
    Ok(vec![y])
}

/// The axis of `GatherElements` and `ScatterElements`, if the indices fit the data.
pub(in crate::ops) fn axis_of_elements(
    op: &OpNode,
    shape: &[usize],
    picked: &[usize],
) -> Result<usize, OpError> {
    let axis = axis(op.node.int("axis", 0), shape.len())?;
    let is_within = |i: usize| i == axis || picked[i] <= shape[i];
    if picked.len() != shape.len() || !(0..shape.len()).all(is_within) {
        return Err(OpError::shape(format!("indices {picked:?} for data {shape:?}")));
    }
    Ok(axis)
}

fn tuples(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (x, at) = (inputs.device(0)?, inputs.device(1)?);
    let (length, outer) =
        at.shape().split_last().ok_or_else(|| OpError::shape("the indices are a scalar"))?;
    let axes = split(op, x.shape().len(), at.shape().len(), *length)?;
    let shape = [outer, &x.shape()[axes.batch + length..]].concat();
    let y = context.tensor(x.dtype(), shape)?;
    let tuples = tuples_of(x, axes.batch, *length, outer);
    elementwise::gather_nd(context.gpu, width(x), x.ptr(), indices(at)?, y.ptr(), &tuples)?;
    Ok(vec![y])
}

/// Tuples of indices into x, `outer` of them.
pub(in crate::ops) fn tuples_of<'a>(
    x: &'a GpuTensor,
    batch_axes: usize,
    length: usize,
    outer: &[usize],
) -> Tuples<'a> {
    Tuples { shape: x.shape(), batch_axes, length, n: outer.iter().product() }
}
