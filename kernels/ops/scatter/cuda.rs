//! The CUDA forms. Updates out of bounds are left out: a kernel can't fail.

use planish_cuda::elementwise::{Reduction, scatter_elements, scatter_nd};
use planish_ir::Tensor;

use crate::ops::gather::{axis_of_elements, tuples_of};
use crate::ops::support::cuda::{Made, Outputs, duplicate, indices, kernel, number};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    reduction(op)?;
    kernel(op, if op.node.op_type == "ScatterND" { tuples } else { elements }, &[])
}

fn reduction(op: &OpNode) -> Result<Reduction, OpError> {
    Ok(match op.node.str("reduction", "none") {
        "none" => Reduction::None,
        "add" => Reduction::Add,
        "mul" => Reduction::Mul,
        "max" => Reduction::Max,
        "min" => Reduction::Min,
        other => return Err(super::unknown(other)),
    })
}

fn elements(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (data, at, updates) = (inputs.device(0)?, inputs.device(1)?, inputs.device(2)?);
    let axis = axis_of_elements(op, data.shape(), at.shape())?;
    if at.shape() != updates.shape() || updates.dtype() != data.dtype() {
        return Err(OpError::shape("updates and indices do not go together"));
    }
    let y = duplicate(context, data)?;
    let (how, to) = ((reduction(op)?, number(y.dtype())?), (y.ptr(), y.shape()));
    let by = (indices(at)?, at.shape());
    scatter_elements(context.gpu, how, to, by, updates.ptr(), axis)?;
    Ok(vec![y])
}

fn tuples(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (data, at, updates) = (inputs.device(0)?, inputs.device(1)?, inputs.device(2)?);
    let misfit = || OpError::shape("data, indices and updates do not go together");
    let (length, outer) = at.shape().split_last().ok_or_else(misfit)?;
    let inner = data.shape().get(*length..).ok_or_else(misfit)?;
    if updates.shape() != [outer, inner].concat() || updates.dtype() != data.dtype() {
        return Err(misfit());
    }
    let y = duplicate(context, data)?;
    let how = (reduction(op)?, number(y.dtype())?);
    let tuples = tuples_of(data, 0, *length, outer);
    scatter_nd(context.gpu, how, y.ptr(), indices(at)?, updates.ptr(), &tuples)?;
    Ok(vec![y])
}
