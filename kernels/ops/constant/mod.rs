//! `Constant` and `ConstantOfShape`.

use bytes::Bytes;
use planish_ir::{Attribute, DataType, Dim, Tensor};

use super::common::facts::{list_length, required};
use super::common::index::count;
use super::common::pick::take;
use crate::infer::unknown_dim;
use crate::op::required as input;
use crate::{Fact, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Constant", infer_constant, eval_constant),
    OpDef::new("ConstantOfShape", infer_fill, eval_fill),
];

fn infer_constant(op: &OpNode, _: &[Fact]) -> Result<Vec<Fact>, OpError> {
    Ok(vec![Fact::of_constant(&value(op)?)])
}

fn eval_constant(op: &OpNode, _: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![value(op)?])
}

/// The tensor that a `Constant` node's attribute holds, whichever form it has.
fn value(op: &OpNode) -> Result<Tensor, OpError> {
    for (name, attribute) in &op.node.attributes {
        let tensor = match (name.as_str(), attribute) {
            ("value", Attribute::Tensor(tensor)) => tensor.clone(),
            ("value_int", Attribute::Int(value)) => Tensor::scalar(*value),
            ("value_ints", Attribute::Ints(values)) => list(values.clone()),
            ("value_float", Attribute::Float(value)) => Tensor::scalar(*value),
            ("value_floats", Attribute::Floats(values)) => list(values.clone()),
            ("value_string", Attribute::String(text)) => strings(Vec::new(), vec![text.clone()])?,
            ("value_strings", Attribute::Strings(texts)) => {
                strings(vec![texts.len()], texts.clone())?
            }
            _ => continue,
        };
        return Ok(tensor);
    }
    Err(OpError::unsupported("no attribute holds a dense value"))
}

fn list<T: planish_ir::tensor::Element>(values: Vec<T>) -> Tensor {
    Tensor::from_vec(&[values.len()], values)
}

fn strings(shape: Vec<usize>, texts: Vec<Bytes>) -> Result<Tensor, OpError> {
    Ok(Tensor::from_strings(shape, texts)?)
}

/// The element that `ConstantOfShape` repeats, 0.0 if not given.
fn element(op: &OpNode) -> Result<Tensor, OpError> {
    let value = op.node.attributes.get("value").and_then(Attribute::as_tensor);
    let value = value.cloned().unwrap_or_else(|| Tensor::from_vec(&[1], vec![0f32]));
    if value.n_elements() == 1 {
        Ok(value)
    } else {
        Err(OpError::shape(format!("\"value\" has {} elements, not 1", value.n_elements())))
    }
}

fn infer_fill(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let target = required(inputs, 0)?;
    let value = element(op)?;
    let unknown = |rank: usize| (0..rank).map(|axis| unknown_dim(op.node, axis)).collect();
    let shape: Option<Vec<Dim>> = target.dims.clone().or_else(|| list_length(target).map(unknown));
    let mut fact = Fact::new(Some(value.dtype()), shape);
    fact.dims = repeated(&value, fact.shape.as_deref());
    Ok(vec![fact])
}

/// The elements, if they are integers in a short list.
fn repeated(value: &Tensor, shape: Option<&[Dim]>) -> Option<Vec<Dim>> {
    let n = match shape? {
        [] => 1,
        [n] => n.as_usize().filter(|n| *n <= crate::fact::MAX_DIMS)?,
        _ => return None,
    };
    let is_size = matches!(value.dtype(), DataType::I64 | DataType::I32);
    let value = value.to_i64_vec().ok().filter(|_| is_size)?;
    Some(vec![Dim::from(*value.first()?); n])
}

fn eval_fill(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let sizes = input(inputs, 0)?.to_i64_vec()?;
    let shape = super::common::axes::sizes(&sizes)?;
    let n = count(&shape)?;
    Ok(vec![take(&element(op)?, &shape, std::iter::repeat_n(0, n))?])
}
