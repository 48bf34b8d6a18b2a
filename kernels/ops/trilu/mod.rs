//! `Trilu`: the upper or lower triangle of matrices, the rest 0.

use planish_ir::Tensor;

use super::common::facts::required;
use super::common::index::{coordinates, count};
use super::common::pick::pick;
use crate::op::{optional, required as input};
use crate::{Fact, OpDef, OpError, OpNode};

mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("Trilu", infer, eval).with_cuda(cuda::cuda)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    match x.rank() {
        Some(rank @ 0..2) => Err(too_small(rank)),
        _ => Ok(vec![Fact::new(x.dtype, x.shape.clone())]),
    }
}

fn too_small(rank: usize) -> OpError {
    OpError::shape(format!("an input of rank {rank} is no matrix"))
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    if x.shape().len() < 2 {
        return Err(too_small(x.shape().len()));
    }
    let diagonal = match optional(inputs, 1) {
        Some(k) => *k.to_i64_vec()?.first().ok_or_else(|| OpError::shape("k is empty"))?,
        None => 0,
    };
    let upper = op.node.int("upper", 1) != 0;
    let zero = Tensor::new(x.dtype(), vec![1], vec![0; x.dtype().bits().div_ceil(8)].into())?;
    count(x.shape())?;
    let choices = coordinates(x.shape()).enumerate().map(|(i, at)| {
        let [.., row, column] = at[..] else { return (0, i) };
        let distance = column as i64 - row as i64;
        let kept = if upper { distance >= diagonal } else { distance <= diagonal };
        if kept { (0, i) } else { (1, 0) }
    });
    Ok(vec![pick(&[x, &zero], x.shape(), choices)?])
}
