//! Elementwise operators on one operand.

use planish_ir::{DataType, Dim};

use super::common::facts::{required, with_dims};
use crate::{Fact, OpDef, OpError, OpNode};

mod cpu;
mod erf;
mod eval;
#[cfg(test)]
mod tests;

const fn def(name: &'static str) -> OpDef {
    OpDef::new(name, infer, eval::eval).with_cpu(cpu::cpu)
}

pub(super) static OPS: &[OpDef] = &[
    def("Neg"),
    def("Abs"),
    def("Sqrt"),
    def("Reciprocal"),
    def("Exp"),
    def("Log"),
    def("Erf"),
    def("Tanh"),
    def("Sigmoid"),
    def("Relu"),
    def("LeakyRelu"),
    def("Elu"),
    def("Softplus"),
    def("Round"),
    def("Floor"),
    def("Ceil"),
    def("Sign"),
    def("Cos"),
    def("Sin"),
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
