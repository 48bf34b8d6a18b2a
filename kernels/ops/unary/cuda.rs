//! The CUDA forms.

use planish_cuda::elementwise::Unary;
use planish_ir::Tensor;

use crate::ops::support::cuda::{Made, Outputs, kernel, unary};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (code, parameter) = match op.node.op_type.as_str() {
        "LeakyRelu" => (Unary::LeakyRelu, op.node.float("alpha", 0.01)),
        "Elu" => (Unary::Elu, op.node.float("alpha", 1.0)),
        "IsInf" => {
            let counts = |name| op.node.int(name, 1) != 0;
            let negative = if counts("detect_negative") { 2.0 } else { 0.0 };
            (Unary::IsInf, f32::from(u8::from(counts("detect_positive"))) + negative)
        }
        name => (code(name)?, 0.0),
    };
    Ok(vec![unary(context, code, parameter, inputs.device(0)?)?])
}

fn code(name: &str) -> Result<Unary, OpError> {
    Ok(match name {
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Sqrt" => Unary::Sqrt,
        "Reciprocal" => Unary::Reciprocal,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Erf" => Unary::Erf,
        "Tanh" => Unary::Tanh,
        "Sigmoid" => Unary::Sigmoid,
        "Relu" => Unary::Relu,
        "Softplus" => Unary::Softplus,
        "Round" => Unary::Round,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Sign" => Unary::Sign,
        "Cos" => Unary::Cos,
        "Sin" => Unary::Sin,
        "IsNaN" => Unary::IsNan,
        "Not" => Unary::Not,
        "BitwiseNot" => Unary::BitwiseNot,
        _ => return Err(OpError::unsupported(format!("{name} is unknown"))),
    })
}
