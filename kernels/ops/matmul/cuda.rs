//! The CUDA form of `MatMul`.

use planish_ir::Tensor;

use super::Plan;
use crate::ops::support::cuda::{Made, Outputs, kernel};
use crate::ops::support::cuda_products::{CudaFactor, multiply};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(_: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (a, b) = (inputs.device(0)?, inputs.device(1)?);
    let plan = Plan::new(a.shape(), b.shape())?;
    let factor = |tensor| CudaFactor { tensor, transposed: false };
    Ok(vec![multiply(context, &plan, 1.0, factor(a), factor(b), None)?])
}
