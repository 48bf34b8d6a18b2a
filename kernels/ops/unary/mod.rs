//! Elementwise operators on one operand.

use planish_ir::{DataType, Dim};

use super::common::facts::{required, with_dims};
use crate::{Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod erf;
mod eval;
mod grad;
#[cfg(test)]
mod tests;

const fn def(name: &'static str) -> OpDef {
    OpDef::new(name, infer, eval::eval).with_cpu(cpu::cpu).with_cuda(cuda::cuda)
}

pub(super) static OPS: &[OpDef] = &[
    def("Neg").with_grad(grad::neg),
    def("Abs").with_grad(grad::abs),
    def("Sqrt").with_grad(grad::sqrt),
    def("Reciprocal").with_grad(grad::reciprocal),
    def("Exp").with_grad(grad::exp),
    def("Log").with_grad(grad::log),
    def("Erf").with_grad(grad::erf),
    def("Tanh").with_grad(grad::tanh),
    def("Sigmoid").with_grad(grad::sigmoid),
    def("Relu").with_grad(grad::relu),
    def("LeakyRelu").with_grad(grad::leaky_relu),
    def("Elu").with_grad(grad::elu),
    def("Softplus").with_grad(grad::softplus),
    def("Round"),
    def("Floor"),
    def("Ceil"),
    def("Sign"),
    def("Cos").with_grad(grad::cos),
    def("Sin").with_grad(grad::sin),
    def("IsNaN"),
    def("IsInf"),
    def("Not"),
    def("BitwiseNot"),
];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    let op_type = op.node.op_type.as_str();
    let dtype = if is_test(op_type) { Some(DataType::Bool) } else { x.dtype };
    let dims = x.dims.as_ref().and_then(|dims| elements(op_type, dims));
    Ok(vec![with_dims(dtype, x.shape.clone(), dims)])
}

fn is_test(op_type: &str) -> bool {
    matches!(op_type, "IsNaN" | "IsInf")
}

fn elements(op_type: &str, dims: &[Dim]) -> Option<Vec<Dim>> {
    match op_type {
        "Neg" => Some(dims.iter().map(|dim| Dim::from(0i64).sub(dim)).collect()),
        "Abs" | "Relu" if dims.iter().all(Dim::is_surely_non_negative) => Some(dims.to_vec()),
        _ => None,
    }
}
