//! The engine's `WeightOnlyMatMul`: X · (W · w_scale), plus a bias if there is one, with f32
//! activations and INT4 or INT8 weights. `block_size` rows of K share a scale, all of them if 0.

use planish_ir::{DataType, Tensor};

use super::linear::{check_bias, is_transposed, product, product_shape};
use super::support::{Dense, facts, packed};
use crate::op::{optional, required};
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(in crate::ops) use cpu::kernel;

pub(super) static OPS: &[OpDef] = &[OpDef::new("WeightOnlyMatMul", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)];

/// The attribute `block_size`; `None` for one scale a column.
fn block_size(op: &OpNode) -> Result<Option<usize>, OpError> {
    match usize::try_from(op.node.int("block_size", 0)) {
        Ok(size) => Ok(Some(size).filter(|size| *size > 0)),
        Err(_) => Err(OpError::unsupported("block_size must not be negative")),
    }
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    block_size(op)?;
    let (w, scale) = (facts::required(inputs, 1)?, facts::required(inputs, 2)?);
    facts::of_type("a weight", w, &[DataType::I4, DataType::I8])?;
    let shape = product_shape(facts::required(inputs, 0)?, w, is_transposed(op))?;
    let columns = shape.as_ref().and_then(|shape| shape.last());
    facts::same_size("the weight's scale", columns, scale.dim(-1))?;
    check_bias(facts::optional(inputs, 3), shape.as_deref())?;
    Ok(vec![Fact::new(Some(DataType::F32), shape)])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
    let (scale, transposed) = (Dense::read(required(inputs, 2)?)?, is_transposed(op));
    let (k, n) = packed::sizes(w, transposed)?;
    let size = block_size(op)?.unwrap_or(k.max(1));
    if k % size != 0 || scale.data.len() != k / size * n {
        return Err(OpError::shape(format!("scales {:?} for {:?}", scale.shape, w.shape())));
    }
    let dequantised = w.to_f32_vec()?.into_iter().enumerate().map(|(i, code)| {
        let (row, column) = if transposed { (i % k, i / k) } else { (i / n, i % n) };
        code * scale.data[row / size * n + column]
    });
    product(x, w, &dequantised.collect::<Vec<f32>>(), transposed, optional(inputs, 3))
}
