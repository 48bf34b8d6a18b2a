//! The CUDA forms of `Cast` and `CastLike`. All floats are stored alike, so that nothing is to be
//! done between types of them.

use planish_ir::Tensor;

use super::attribute;
use crate::ops::support::cuda::{Made, Outputs, cast, kernel, number, stored};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, prepare: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    if op.node.op_type == "Cast" && number(stored(attribute(op)?, prepare.element)).is_err() {
        return Ok(None);
    }
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let to = match op.node.op_type.as_str() {
        "CastLike" => inputs.device(1)?.dtype(),
        _ => stored(attribute(op)?, context.element),
    };
    Ok(vec![cast(context, inputs.device(0)?, to)?])
}
