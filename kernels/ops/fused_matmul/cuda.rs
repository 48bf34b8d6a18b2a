//! The CUDA form of `FusedMatMul`.

use planish_ir::Tensor;

use super::{Attributes, plan};
use crate::ops::support::cuda::{Made, Outputs, kernel};
use crate::ops::support::cuda_products::{CudaFactor, multiply};
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    Attributes::read(op)?;
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let attributes = Attributes::read(op)?;
    let (a, b) = (inputs.device(0)?, inputs.device(1)?);
    let plan = plan(a.shape(), b.shape(), attributes)?;
    let factor = |tensor: &'_ GpuTensor, transposed| transposed && tensor.shape().len() > 1;
    let a = CudaFactor { tensor: a, transposed: factor(a, attributes.trans_a) };
    let b = CudaFactor { tensor: b, transposed: factor(b, attributes.trans_b) };
    Ok(vec![multiply(context, &plan, attributes.alpha, a, b, None)?])
}
