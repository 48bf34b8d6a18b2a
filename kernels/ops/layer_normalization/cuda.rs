//! The CUDA form of `LayerNormalization`.

use planish_ir::Tensor;

use super::EPSILON;
use crate::ops::support::cuda::{Made, Outputs, kernel};
use crate::ops::support::cuda_norm_grads;
use crate::ops::support::cuda_norms::CudaNorm;
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (axis, epsilon) = (op.node.int("axis", -1), op.node.float("epsilon", EPSILON));
    let norm = CudaNorm {
        is_centered: true,
        bias: inputs.optional(2),
        wants_statistics: op.n_outputs() > 1,
        ..CudaNorm::rms(axis, epsilon, inputs.device(1)?)
    };
    let normalised = norm.run(context, inputs.device(0)?)?;
    let outputs = [Some(normalised.y), normalised.mean, normalised.inverse];
    Ok(outputs.into_iter().flatten().take(op.n_outputs()).collect())
}

pub(super) fn grad(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(
        op,
        |op, context, inputs| {
            let epsilon = op.node.float("epsilon", EPSILON);
            cuda_norm_grads::run(op, context, inputs, epsilon, true)
        },
        &[],
    )
}
