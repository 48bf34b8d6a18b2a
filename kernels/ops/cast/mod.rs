//! `Cast` and `CastLike`: conversion between element types.

use planish_ir::{DataType, Tensor};

use super::common::facts::{required, with_dims};
use super::common::numbers::Numbers;
use crate::op::{optional, required as input};
use crate::{Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Cast", infer, eval).with_cpu(cpu::cpu).with_cuda(cuda::cuda).with_grad(grad::cast),
    OpDef::new("CastLike", infer, eval)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::cast),
];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    let dtype = match op.node.op_type.as_str() {
        "CastLike" => required(inputs, 1)?.dtype,
        _ => Some(attribute(op)?),
    };
    let holds_sizes = matches!(dtype, Some(DataType::I64 | DataType::I32));
    let dims = x.dims.clone().filter(|_| holds_sizes);
    let mut fact = with_dims(dtype, x.shape.clone(), dims);
    if fact.dtype.is_some() && fact.dtype == x.dtype {
        fact.constant = x.constant.clone();
    }
    Ok(vec![fact])
}

/// The type that the attribute `to` names.
fn attribute(op: &OpNode) -> Result<DataType, OpError> {
    let code = op.node.int("to", 0);
    i32::try_from(code)
        .ok()
        .and_then(DataType::from_onnx)
        .ok_or_else(|| OpError::unsupported(format!("{code} is no element type")))
}

/// The type to cast to.
fn target(op: &OpNode, like: Option<&Tensor>) -> Result<DataType, OpError> {
    match op.node.op_type.as_str() {
        "CastLike" => like.map(Tensor::dtype).ok_or(OpError::MissingInput(1)),
        _ => attribute(op),
    }
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let dtype = target(op, optional(inputs, 1))?;
    Ok(vec![if dtype == x.dtype() {
        x.clone()
    } else {
        Numbers::read(x)?.write(dtype, x.shape())?
    }])
}
