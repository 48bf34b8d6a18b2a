//! The CUDA form of `SwiGLU`.

use planish_cuda::elementwise::Binary;
use planish_ir::Tensor;

use crate::ops::support::cuda::{Made, Outputs, binary, kernel};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(_: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    Ok(vec![binary(context, Binary::SwiGlu, inputs.device(0)?, inputs.device(1)?)?])
}
