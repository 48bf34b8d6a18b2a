//! The CUDA forms, and those of the variadic operators, which take their operands one by one.

use planish_cuda::elementwise::Binary;
use planish_ir::Tensor;

use crate::cuda_kernel::upload;
use crate::ops::support::cuda::{Made, Outputs, binary, cast, kernel};
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, prepare: &CudaPrepare<'_>, constants: &[Option<Tensor>]) -> Made {
    if op.node.op_type != "Mean" {
        return kernel(op, run, &[]);
    }
    let part = Tensor::scalar(1.0 / constants.len().max(1) as f32);
    Ok(Some(Box::new(Mean(upload(prepare.gpu, &part, prepare.element)?))))
}

fn code(op: &OpNode) -> Option<Binary> {
    Some(match op.node.op_type.as_str() {
        "Add" | "Sum" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        "Mod" if op.node.int("fmod", 0) != 0 => Binary::Fmod,
        "Mod" => Binary::Mod,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        "And" | "BitwiseAnd" => Binary::And,
        "Or" | "BitwiseOr" => Binary::Or,
        "Xor" | "BitwiseXor" => Binary::Xor,
        "Equal" => Binary::Equal,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        _ => return None,
    })
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let unknown = || OpError::unsupported(format!("{} is unknown", op.node.op_type));
    let code = code(op).ok_or_else(unknown)?;
    if code == Binary::Pow {
        return Ok(vec![power(context, inputs.device(0)?, inputs.device(1)?)?]);
    }
    Ok(vec![fold(context, code, inputs)?])
}

fn fold(context: &CudaContext, code: Binary, inputs: CudaInputs<'_>) -> Result<GpuTensor, OpError> {
    let first = inputs.device(0)?.clone();
    (1..inputs.len()).try_fold(first, |y, i| binary(context, code, &y, inputs.device(i)?))
}

/// The exponent may be of another type; the result is of the base's.
fn power(context: &CudaContext, a: &GpuTensor, b: &GpuTensor) -> Result<GpuTensor, OpError> {
    // Of an integer to a power that is none, the fraction is cut off.
    let wide = if b.dtype().is_float() { b.dtype() } else { a.dtype() };
    let y = binary(context, Binary::Pow, &cast(context, a, wide)?, &cast(context, b, wide)?)?;
    cast(context, &y, a.dtype())
}

/// The sum times one over the number of operands.
struct Mean(GpuTensor);

impl CudaKernel for Mean {
    fn run(&self, context: &mut CudaContext, inputs: CudaInputs<'_>) -> Outputs {
        let sum = fold(context, Binary::Add, inputs)?;
        Ok(vec![binary(context, Binary::Mul, &sum, &self.0)?])
    }
}
