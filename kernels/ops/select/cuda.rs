//! The CUDA form of `Where`.

use planish_cuda::elementwise::select;
use planish_ir::{DataType, Tensor};

use crate::ops::common::broadcast;
use crate::ops::support::cuda::{Made, Outputs, kernel, width};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(_: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (c, a, b) = (inputs.device(0)?, inputs.device(1)?, inputs.device(2)?);
    if c.dtype() != DataType::Bool || a.dtype() != b.dtype() {
        return Err(OpError::unsupported("the condition is no bool, or the types differ"));
    }
    let shape = broadcast::shapes(c.shape(), a.shape())?;
    let y = context.tensor(a.dtype(), broadcast::shapes(&shape, b.shape())?)?;
    let [c, a, b, out] = [c, a, b, &y].map(|t| (t.ptr(), t.shape()));
    select(context.gpu, width(&y), c, a, b, out)?;
    Ok(vec![y])
}
