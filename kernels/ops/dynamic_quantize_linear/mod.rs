//! `DynamicQuantizeLinear`: uint8 codes over the range of the whole tensor and 0.

use planish_ir::{DataType, Tensor};

use super::support::{Dense, facts};
use crate::op::required;
use crate::{Fact, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("DynamicQuantizeLinear", infer, eval)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let scalar = |dtype| Fact::new(Some(dtype), Some(Vec::new()));
    let codes = Fact::new(Some(DataType::U8), facts::required(inputs, 0)?.shape.clone());
    Ok(vec![codes, scalar(DataType::F32), scalar(DataType::U8)])
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = Dense::read(required(inputs, 0)?)?;
    let low = x.data.iter().copied().fold(0f32, f32::min);
    let high = x.data.iter().copied().fold(0f32, f32::max);
    // A tensor of zeros alone has no range; ONNX Runtime takes the scale 1.
    let scale = if low == high { 1.0 } else { (high - low) / 255.0 };
    let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0);
    let code = |x: &f32| ((x / scale).round_ties_even() + zero).clamp(0.0, 255.0) as u8;
    let codes = x.data.iter().map(code).collect();
    Ok(vec![Tensor::from_vec(&x.shape, codes), Tensor::scalar(scale), Tensor::scalar(zero as u8)])
}
