//! `CumSum`: running sums along an axis.

use planish_ir::Tensor;

use super::common::axes::axis;
use super::common::facts::required;
use super::common::index::around;
use super::common::numbers::Numbers;
use crate::op::required as input;
use crate::{Fact, OpDef, OpError, OpNode};

mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("CumSum", infer, eval).with_cuda(cuda::cuda)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    Ok(vec![Fact::new(x.dtype, x.shape.clone())])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let list = input(inputs, 1)?.to_i64_vec()?;
    let [at] = list[..] else { return Err(OpError::shape("the axis is not one number")) };
    let axis = axis(at, x.shape().len())?;
    let sums = match Numbers::read(x)? {
        Numbers::Floats(x_) => Numbers::Floats(sums(op, &x_, x.shape(), axis, |a, b| a + b)?),
        Numbers::Ints(x_) => Numbers::Ints(sums(op, &x_, x.shape(), axis, i128::wrapping_add)?),
    };
    Ok(vec![sums.write(x.dtype(), x.shape())?])
}

fn sums<T: Copy + Default>(
    op: &OpNode,
    x: &[T],
    shape: &[usize],
    axis: usize,
    add: impl Fn(T, T) -> T,
) -> Result<Vec<T>, OpError> {
    let exclusive = op.node.int("exclusive", 0) != 0;
    let reverse = op.node.int("reverse", 0) != 0;
    let (outer, size, inner) = around(shape, axis)?;
    let mut result = vec![T::default(); x.len()];
    for o in 0..outer {
        for i in 0..inner {
            let mut sum = T::default();
            for step in 0..size {
                let along = if reverse { size - 1 - step } else { step };
                let index = (o * size + along) * inner + i;
                let next = add(sum, x[index]);
                result[index] = if exclusive { sum } else { next };
                sum = next;
            }
        }
    }
    Ok(result)
}
