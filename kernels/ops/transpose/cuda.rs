//! The CUDA form of `Transpose`.

use planish_ir::Tensor;

use super::{keeps_order, permutation};
use crate::ops::common::index::strides;
use crate::ops::common::strided::View;
use crate::ops::support::cuda::{Made, Outputs, copy, kernel};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let permutation = permutation(op, x.shape().len())?;
    if keeps_order(&permutation, x.shape()) {
        let shape = permutation.iter().map(|axis| x.shape()[*axis]).collect();
        return Ok(vec![x.reshaped(shape)?]);
    }
    let steps = strides(x.shape());
    let axes = permutation.iter().map(|axis| (x.shape()[*axis], steps[*axis] as isize)).collect();
    Ok(vec![copy(context, x, &View { offset: 0, axes })?])
}
