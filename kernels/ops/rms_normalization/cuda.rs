//! The CUDA form of `RMSNormalization` and `SimplifiedLayerNormalization`.

use planish_ir::Tensor;

use super::EPSILON;
use crate::ops::support::cuda::{Made, Outputs, kernel};
use crate::ops::support::cuda_norm_grads;
use crate::ops::support::cuda_norms::CudaNorm;
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(in crate::ops) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (axis, epsilon) = (op.node.int("axis", -1), op.node.float("epsilon", EPSILON));
    let norm = CudaNorm::rms(axis, epsilon, inputs.device(1)?);
    let norm = CudaNorm { wants_statistics: op.n_outputs() > 1, ..norm };
    let normalised = norm.run(context, inputs.device(0)?)?;
    Ok([Some(normalised.y), normalised.inverse].into_iter().flatten().collect())
}

pub(super) fn grad(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(
        op,
        |op, context, inputs| {
            let epsilon = op.node.float("epsilon", EPSILON);
            cuda_norm_grads::run(op, context, inputs, epsilon, false)
        },
        &[],
    )
}
