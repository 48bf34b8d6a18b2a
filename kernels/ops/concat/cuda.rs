//! The CUDA form of `Concat`.

use planish_ir::Tensor;

use super::joined;
use crate::ops::support::cuda::{Made, Outputs, kernel, put, steps};
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let parts: Vec<&GpuTensor> =
        (0..inputs.len()).map(|i| inputs.device(i)).collect::<Result<_, _>>()?;
    let shapes: Vec<&[usize]> = parts.iter().map(|part| part.shape()).collect();
    let (axis, shape) = joined(op, &shapes)?;
    let dtype = parts[0].dtype();
    if parts.iter().any(|part| part.dtype() != dtype) {
        return Err(OpError::unsupported("the parts are of different types"));
    }
    let y = context.tensor(dtype, shape)?;
    let (to, mut start) = (steps(y.shape()), 0);
    for part in parts {
        put(context, part, &y, start * to[axis] as usize, &to)?;
        start += part.shape()[axis];
    }
    Ok(vec![y])
}
