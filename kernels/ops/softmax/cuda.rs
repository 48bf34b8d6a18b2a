//! The CUDA forms of `Softmax` and `LogSoftmax`.

use planish_cuda::elementwise::softmax;
use planish_ir::Tensor;

use super::groups;
use crate::ops::support::cuda::{Made, Outputs, kernel, like, number};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let (outer, n, step) = groups(op, x.shape())?;
    let (y, is_log) = (like(context, x)?, op.node.op_type == "LogSoftmax");
    softmax(context.gpu, number(x.dtype())?, x.ptr(), y.ptr(), [outer, n, step], is_log)?;
    Ok(vec![y])
}
