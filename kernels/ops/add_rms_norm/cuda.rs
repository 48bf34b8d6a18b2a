//! The CUDA form of `AddRMSNorm`.

use planish_ir::Tensor;

use super::EPSILON;
use crate::ops::support::cuda::{Made, Outputs, kernel};
use crate::ops::support::cuda_norms::CudaNorm;
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let norm = CudaNorm::rms(-1, op.node.float("epsilon", EPSILON), inputs.device(2)?);
    let norm = CudaNorm { skip: Some(inputs.device(1)?), wants_sum: true, ..norm };
    let normalised = norm.run(context, inputs.device(0)?)?;
    Ok([Some(normalised.y), normalised.sum].into_iter().flatten().collect())
}
