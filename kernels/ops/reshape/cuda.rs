//! The CUDA forms: the same memory seen in another shape.

use planish_ir::Tensor;

use super::target_of;
use crate::ops::support::cuda::{Made, Outputs, host_inputs, kernel};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[1])
}

fn run(op: &OpNode, _: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    Ok(vec![x.reshaped(target_of(op, &host_inputs(inputs), x.shape())?)?])
}
