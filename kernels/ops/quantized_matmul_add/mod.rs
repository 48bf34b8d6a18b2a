//! The CUDA engine's `QuantizedMatMulAdd`: a `QuantizedMatMul` (with a `block_size` above 0 a
//! `BlockQuantizedMatMul`) and the addition of a residual of the same shape in one kernel. Inputs:
//! codes, a_scale, W, w_scale, residual.

use planish_ir::Tensor;

use super::support::{Dense, dense, facts};
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode, ops};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("QuantizedMatMulAdd", infer, eval)
    .in_domain(DOMAIN)
    .with_cuda(super::quantized_matmul::cuda::with_residual)];

fn product(op: &OpNode) -> Result<&'static OpDef, OpError> {
    let is_block = op.node.int("block_size", 0) > 0;
    let name = if is_block { "BlockQuantizedMatMul" } else { "QuantizedMatMul" };
    ops::find(DOMAIN, name).ok_or_else(|| OpError::unsupported("there is no product"))
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::required(inputs, 4)?;
    (product(op)?.infer)(op, &inputs[..4])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let residual = Dense::read(required(inputs, 4)?)?;
    let product = (product(op)?.eval)(op, &inputs[..4])?;
    let product = required(&[product.into_iter().next()], 0)?.clone();
    if product.shape() != residual.shape {
        return Err(OpError::shape("the residual must have the shape of the product"));
    }
    let product_data = product.to_f32_vec()?;
    let data = product_data.iter().zip(&residual.data).map(|(a, b)| a + b).collect();
    Ok(vec![dense::of_f32(product.dtype(), product.shape(), data)?])
}
