//! The CUDA form of `NegativeLogLikelihood`.

use planish_cuda::elementwise::negative_log_likelihood;
use planish_ir::{DataType, Tensor};

use super::check_shapes;
use crate::ops::support::cuda::{Made, Outputs, kernel, number};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

/// The result is f32, whatever floats are stored as.
fn run(_: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (logits, targets) = (inputs.device(0)?, inputs.device(1)?);
    check_shapes(logits.shape(), targets.shape())?;
    if targets.dtype() != DataType::I64 {
        return Err(OpError::unsupported(format!("the targets can't be {}", targets.dtype())));
    }
    let y = context.tensor(DataType::F32, targets.shape().to_vec())?;
    let (from, sizes) = ((logits.ptr(), targets.ptr()), (targets.n_elements(), logits.last()));
    negative_log_likelihood(context.gpu, number(logits.dtype())?, from, y.ptr(), sizes)?;
    Ok(vec![y])
}
