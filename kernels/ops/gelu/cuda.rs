//! The CUDA forms of the GELU operators and `Swish`.

use planish_cuda::elementwise::{Binary, Unary};
use planish_ir::Tensor;

use super::QUICK_ALPHA;
use crate::ops::support::cuda::{Made, Outputs, binary, kernel, unary};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(in crate::ops) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    if !matches!(op.node.str("approximate", "none"), "none" | "tanh") {
        return Ok(None);
    }
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let y = match op.node.op_type.as_str() {
        "Swish" => unary(context, Unary::Swish, op.node.float("alpha", 1.0), x)?,
        "QuickGelu" => unary(context, Unary::Swish, op.node.float("alpha", QUICK_ALPHA), x)?,
        "FastGelu" => match inputs.optional(1) {
            None => unary(context, Unary::GeluTanh, 0.0, x)?,
            Some(bias) => {
                let sum = binary(context, Binary::Add, x, bias)?;
                unary(context, Unary::GeluTanh, 0.0, &sum)?
            }
        },
        _ if op.node.str("approximate", "none") == "tanh" => {
            unary(context, Unary::GeluTanh, 0.0, x)?
        }
        _ => unary(context, Unary::Gelu, 0.0, x)?,
    };
    Ok(vec![y])
}
