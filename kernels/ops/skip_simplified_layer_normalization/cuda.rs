//! The CUDA form of the skip normalisations.

use planish_ir::Tensor;

use super::EPSILON;
use crate::ops::support::cuda::{Made, Outputs, kernel};
use crate::ops::support::cuda_norms::CudaNorm;
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let is_centered = op.node.op_type == "SkipLayerNormalization";
    let (bias, skip_bias) = match is_centered {
        true => (inputs.optional(3), inputs.optional(4)),
        false => (None, inputs.optional(3)),
    };
    let norm = CudaNorm {
        is_centered,
        skip: Some(inputs.device(1)?),
        skip_bias,
        bias,
        wants_sum: op.n_outputs() > 3,
        wants_statistics: op.n_outputs() > 1,
        ..CudaNorm::rms(-1, op.node.float("epsilon", EPSILON), inputs.device(2)?)
    };
    let normalised = norm.run(context, inputs.device(0)?)?;
    let outputs = [Some(normalised.y), normalised.mean, normalised.inverse, normalised.sum];
    Ok(outputs.into_iter().flatten().take(op.n_outputs()).collect())
}
