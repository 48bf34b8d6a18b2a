//! The CUDA form of `SwiGLU`.

use planish_cuda::elementwise::{Binary, swiglu_grad};
use planish_ir::Tensor;

use crate::ops::support::cuda::{Made, Outputs, binary, kernel, like, number};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(_: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    Ok(vec![binary(context, Binary::SwiGlu, inputs.device(0)?, inputs.device(1)?)?])
}

pub(super) fn grad(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run_grad, &[])
}

fn run_grad(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (dy, gate, up) = (inputs.device(0)?, inputs.device(1)?, inputs.device(2)?);
    if dy.shape() != gate.shape() || up.shape() != gate.shape() {
        return Err(OpError::shape("dY, gate and up differ in shape"));
    }
    let (dgate, dup) = (like(context, gate)?, like(context, up)?);
    let (from, to) = ([dy.ptr(), gate.ptr(), up.ptr()], [dgate.ptr(), dup.ptr()]);
    swiglu_grad(context.gpu, number(gate.dtype())?, from, to, gate.n_elements())?;
    Ok([dgate, dup].into_iter().take(op.n_outputs()).collect())
}
