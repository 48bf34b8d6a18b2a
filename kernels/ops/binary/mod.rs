//! Elementwise operators on two broadcast operands, and the variadic ones that repeat them:
//! arithmetic, comparisons, logic, bits.

use planish_ir::{DataType, Tensor};

use super::common::broadcast;
use super::common::facts::{common_dtype, required, with_dims};
use super::common::numbers::Numbers;
use crate::{Fact, OpDef, OpError, OpNode, op};

mod cpu;
mod cuda;
mod dims;
mod eval;
mod grad;
mod loops;
#[cfg(test)]
mod tests;

const fn def(name: &'static str) -> OpDef {
    OpDef::new(name, infer, eval::eval).with_cpu(cpu::cpu).with_cuda(cuda::cuda)
}

pub(super) static OPS: &[OpDef] = &[
    def("Add").with_grad(grad::add),
    def("Sub").with_grad(grad::sub),
    def("Mul").with_grad(grad::mul),
    def("Div").with_grad(grad::div),
    def("Pow").with_grad(grad::pow),
    def("Mod"),
    def("And"),
    def("Or"),
    def("Xor"),
    def("Equal"),
    def("Greater"),
    def("GreaterOrEqual"),
    def("Less"),
    def("LessOrEqual"),
    def("BitwiseAnd"),
    def("BitwiseOr"),
    def("BitwiseXor"),
    OpDef::new("Max", infer_variadic, eval_variadic)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::extremum),
    OpDef::new("Min", infer_variadic, eval_variadic)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::extremum),
    OpDef::new("Sum", infer_variadic, eval_variadic).with_cuda(cuda::cuda).with_grad(grad::add),
    OpDef::new("Mean", infer_variadic, eval_variadic).with_cuda(cuda::cuda).with_grad(grad::mean),
];

fn is_comparison(op_type: &str) -> bool {
    matches!(op_type, "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual")
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
    Ok(vec![infer_pair(&op.node.op_type, a, b)?])
}

fn infer_pair(op_type: &str, a: &Fact, b: &Fact) -> Result<Fact, OpError> {
    let dtype = if op_type == "Pow" { a.dtype } else { common_dtype(&[a, b])? };
    let shape = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) => Some(broadcast::dims(a, b)?),
        _ => None,
    };
    if is_comparison(op_type) {
        let constant = dims::compare(op_type, a, b, shape.as_deref());
        return Ok(Fact { constant, ..Fact::new(Some(DataType::Bool), shape) });
    }
    let elements = dims::arithmetic(op_type, a, b);
    Ok(with_dims(dtype, shape, elements))
}

fn infer_variadic(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let mut result = required(inputs, 0)?.clone();
    for index in 1..inputs.len() {
        result = infer_pair(&op.node.op_type, &result, required(inputs, index)?)?;
    }
    // The mean is no sum, and one operand alone may be a constant that the driver folds.
    if op.node.op_type == "Mean" {
        result = Fact::new(result.dtype, result.shape);
    }
    Ok(vec![result])
}

fn eval_variadic(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let name = match op.node.op_type.as_str() {
        "Sum" | "Mean" => "Add",
        name => name,
    };
    let mut result = op::required(inputs, 0)?.clone();
    for index in 1..inputs.len() {
        result = eval::pair(op, name, &result, op::required(inputs, index)?)?;
    }
    if op.node.op_type == "Mean" {
        let n = Numbers::Ints(vec![inputs.len() as i128]).write(result.dtype(), &[])?;
        result = eval::pair(op, "Div", &result, &n)?;
    }
    Ok(vec![result])
}
