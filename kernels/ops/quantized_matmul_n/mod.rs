//! The engine's `QuantizedMatMulN`: several `QuantizedMatMul`s of the same codes. Inputs: codes,
//! a_scale, then W and w_scale of each product; one output for each. With a `block_size` above 0
//! they are `BlockQuantizedMatMul`s.

use planish_ir::Tensor;

use super::support::facts;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode, ops};

mod cpu;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("QuantizedMatMulN", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(super::quantized_matmul::cuda::cuda)];

/// The attribute `block_size`; `None` for one scale a column.
fn block_size(op: &OpNode) -> Option<usize> {
    usize::try_from(op.node.int("block_size", 0)).ok().filter(|size| *size > 0)
}

/// The operator of one product.
fn single(op: &OpNode) -> Result<&'static OpDef, OpError> {
    let name = if block_size(op).is_some() { "BlockQuantizedMatMul" } else { "QuantizedMatMul" };
    ops::find(DOMAIN, name).ok_or_else(|| OpError::unsupported(format!("{name} is not listed")))
}

/// Codes, scale, weight and weight's scale of each product.
fn products<T: Clone>(inputs: &[T]) -> Result<Vec<[T; 4]>, OpError> {
    match inputs {
        [codes, scale, pairs @ ..] if !pairs.is_empty() && pairs.len().is_multiple_of(2) => {
            let product = |pair: &[T]| [codes, scale, &pair[0], &pair[1]].map(T::clone);
            Ok(pairs.chunks_exact(2).map(product).collect())
        }
        _ => Err(OpError::shape("a weight and its scale are needed for each product")),
    }
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::required(inputs, 0)?;
    let infer = single(op)?.infer;
    let facts = products(inputs)?.into_iter().map(|inputs| infer(op, &inputs));
    Ok(facts.collect::<Result<Vec<_>, _>>()?.concat())
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let eval = single(op)?.eval;
    let outputs = products(inputs)?.into_iter().map(|inputs| eval(op, &inputs));
    Ok(outputs.collect::<Result<Vec<_>, _>>()?.concat())
}
