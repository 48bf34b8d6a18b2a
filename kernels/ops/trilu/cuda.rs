//! The CUDA form of `Trilu`.

use planish_cuda::elementwise::trilu;
use planish_ir::{DataType, Tensor};

use super::too_small;
use crate::ops::support::cuda::{Made, Outputs, cast, kernel, like, width};
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let &[.., rows, columns] = x.shape() else { return Err(too_small(x.shape().len())) };
    let diagonal = inputs.optional(1).map(|k| cast(context, k, DataType::I64)).transpose()?;
    let how = (op.node.int("upper", 1) != 0, diagonal.as_ref().map(GpuTensor::ptr));
    let (y, n) = (like(context, x)?, x.n_elements());
    trilu(context.gpu, width(x), (x.ptr(), y.ptr()), n, (rows, columns), how)?;
    Ok(vec![y])
}
