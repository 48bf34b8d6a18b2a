//! The CUDA forms of the GELU operators and `Swish`.

use planish_cuda::elementwise::{Binary, Slope, Unary, activation_grad};
use planish_ir::Tensor;

use super::QUICK_ALPHA;
use crate::ops::support::cuda::{Made, Outputs, binary, kernel, like, number, unary};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

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

/// `GeluGrad` and `SwishGrad`.
pub(in crate::ops) fn grad(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    if !matches!(op.node.str("approximate", "none"), "none" | "tanh") {
        return Ok(None);
    }
    kernel(op, run_grad, &[])
}

fn run_grad(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (dy, x) = (inputs.device(0)?, inputs.device(1)?);
    if dy.shape() != x.shape() {
        return Err(OpError::shape(format!("dY is {:?}, X {:?}", dy.shape(), x.shape())));
    }
    let slope = match op.node.op_type.as_str() {
        "SwishGrad" => Slope::Swish,
        _ if op.node.str("approximate", "none") == "tanh" => Slope::GeluTanh,
        _ => Slope::Gelu,
    };
    let (dx, how) = (like(context, x)?, (slope, op.node.float("alpha", 1.0)));
    let pointers = [dy.ptr(), x.ptr(), dx.ptr()];
    activation_grad(context.gpu, how, number(x.dtype())?, pointers, x.n_elements())?;
    Ok(vec![dx])
}
