//! `QuantizeLinear` and `DequantizeLinear`: with one scale, one along an axis, or one for each
//! block of an axis (opset 21).

use planish_ir::{DataType, Tensor};

use super::support::grid::Grid;
use super::support::{Dense, codes, dense, facts};
use crate::op::{optional, required};
use crate::{Fact, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("QuantizeLinear", infer_quantize, quantize),
    OpDef::new("DequantizeLinear", infer_dequantize, dequantize),
];

/// The type of the codes: the zero point's, or the attribute's, or uint8.
fn code_type(op: &OpNode, zero: Option<DataType>) -> Result<DataType, OpError> {
    let attribute = i32::try_from(op.node.int("output_dtype", 0)).ok();
    let dtype = zero.or(attribute.and_then(DataType::from_onnx)).unwrap_or(DataType::U8);
    codes::range(dtype)?;
    Ok(dtype)
}

fn infer_quantize(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::required(inputs, 1)?;
    let x = facts::required(inputs, 0)?;
    let dtype = match facts::optional(inputs, 2) {
        Some(zero) => zero.dtype,
        None => Some(code_type(op, None)?),
    };
    Ok(vec![Fact::new(dtype, x.shape.clone())])
}

fn infer_dequantize(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (x, scale) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    Ok(vec![Fact::new(scale.dtype, x.shape.clone())])
}

fn quantize(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (x, scale) = (Dense::read(required(inputs, 0)?)?, Dense::read(required(inputs, 1)?)?);
    let zero = optional(inputs, 2);
    let dtype = code_type(op, zero.map(Tensor::dtype))?;
    let (low, high) = codes::range(dtype)?;
    let zero = zero.map(Tensor::to_i64_vec).transpose()?;
    let grid = Grid::new(op, &x.shape, &scale.shape)?;
    let code = |(i, x): (usize, &f32)| {
        let at = grid.scale_of(i);
        let shift = zero.as_ref().map_or(Some(0), |zero| zero.get(at).copied());
        let rounded = (x / scale.data[at]).round_ties_even() as i64;
        shift.map(|shift| rounded.saturating_add(shift).clamp(low, high))
    };
    let values: Option<Vec<i64>> = x.data.iter().enumerate().map(code).collect();
    let values = values.ok_or_else(|| OpError::shape("fewer zero points than scales"))?;
    Ok(vec![codes::tensor(dtype, &x.shape, &values)?])
}

fn dequantize(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (x, scale) = (required(inputs, 0)?, required(inputs, 1)?);
    let scales = Dense::read(scale)?;
    let zero = optional(inputs, 2).map(Tensor::to_i64_vec).transpose()?;
    let grid = Grid::new(op, x.shape(), scale.shape())?;
    let value = |(i, code): (usize, &i64)| {
        let at = grid.scale_of(i);
        let shift = zero.as_ref().map_or(Some(0), |zero| zero.get(at).copied());
        shift.map(|shift| code.saturating_sub(shift) as f32 * scales.data[at])
    };
    let data: Option<Vec<f32>> = x.to_i64_vec()?.iter().enumerate().map(value).collect();
    let data = data.ok_or_else(|| OpError::shape("fewer zero points than scales"))?;
    Ok(vec![dense::of_f32(scale.dtype(), x.shape(), data)?])
}
