//! The CUDA form of `Linear`.

use planish_ir::Tensor;

use super::is_transposed;
use crate::ops::matmul::Plan;
use crate::ops::support::cuda::{Made, Outputs, kernel};
use crate::ops::support::cuda_products::{CudaFactor, multiply};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (x, w) = (inputs.device(0)?, inputs.device(1)?);
    let transposed = is_transposed(op);
    let sides = match *w.shape() {
        [n, k] if transposed => [k, n],
        [k, n] => [k, n],
        ref shape => {
            return Err(OpError::shape(format!("a weight must be a matrix, not {shape:?}")));
        }
    };
    let plan = Plan::new(x.shape(), &sides)?;
    let x = CudaFactor { tensor: x, transposed: false };
    let w = CudaFactor { tensor: w, transposed };
    Ok(vec![multiply(context, &plan, 1.0, x, w, inputs.optional(2))?])
}
