//! `Clip`: elements limited to a range.

use planish_ir::Tensor;

use super::common::facts::required;
use super::common::numbers::Numbers;
use crate::op::{optional, required as input};
use crate::{Fact, OpDef, OpError, OpNode};

mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("Clip", infer, eval).with_cuda(cuda::cuda).with_grad(grad::clip)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    Ok(vec![Fact::new(x.dtype, x.shape.clone())])
}

/// A bound, from the input at `index` or, before opset 11, the attribute.
fn bound(
    op: &OpNode,
    inputs: &[Option<Tensor>],
    index: usize,
    name: &str,
) -> Result<Option<Numbers>, OpError> {
    let attribute = op.node.attributes.get(name).and_then(|a| a.as_float());
    match optional(inputs, index) {
        Some(tensor) if tensor.n_elements() == 1 => Ok(Some(Numbers::read(tensor)?)),
        Some(_) => Err(OpError::shape("a bound is not a single number")),
        None => Ok(attribute.map(|value| Numbers::Floats(vec![f64::from(value)]))),
    }
}

/// min(max(x, low), high): where the bounds cross, the upper one counts.
fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let mut values = Numbers::read(x)?;
    for (index, name) in [(1, "min"), (2, "max")] {
        values = match (values, bound(op, inputs, index, name)?) {
            (Numbers::Floats(x), Some(Numbers::Floats(b))) => Numbers::Floats(
                x.into_iter().map(|x| if is_beyond(&x, &b[0], index) { b[0] } else { x }).collect(),
            ),
            (Numbers::Ints(x), Some(Numbers::Ints(b))) => Numbers::Ints(
                x.into_iter().map(|x| if is_beyond(&x, &b[0], index) { b[0] } else { x }).collect(),
            ),
            (values, None) => values,
            _ => return Err(OpError::unsupported("the bounds are not of the input's type")),
        };
    }
    Ok(vec![values.write(x.dtype(), x.shape())?])
}

/// Whether `x` is below the lower bound (input 1) or above the upper one (input 2).
fn is_beyond<T: PartialOrd>(x: &T, bound: &T, index: usize) -> bool {
    if index == 1 { x < bound } else { x > bound }
}
