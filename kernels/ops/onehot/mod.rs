//! `OneHot`: indices as vectors with one element on.

use planish_ir::{Dim, Tensor};

use super::common::axes::axis;
use super::common::facts::{optional, required};
use super::common::index::{coordinates, count};
use super::common::numbers::Numbers;
use super::common::pick::take;
use crate::infer::unknown_dim;
use crate::op::required as input;
use crate::{Fact, OpDef, OpError, OpNode};

mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("OneHot", infer, eval).with_cuda(cuda::cuda)];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (indices, depth) = (required(inputs, 0)?, required(inputs, 1)?);
    let dtype = optional(inputs, 2).and_then(|values| values.dtype);
    let Some(shape) = &indices.shape else { return Ok(vec![Fact::new(dtype, None)]) };
    let axis = axis(op.node.int("axis", -1), shape.len() + 1)?;
    let known = depth.dims.as_ref().and_then(|dims| dims.first().cloned());
    let mut expanded: Vec<Dim> = shape.clone();
    expanded.insert(axis, known.unwrap_or_else(|| unknown_dim(op.node, axis)));
    Ok(vec![Fact::new(dtype, Some(expanded))])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let [indices, depth, values] = [input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?];
    let depth = Numbers::read(depth)?.into_floats();
    let depth = match depth[..] {
        [depth] if depth >= 0.0 => depth as usize,
        _ => return Err(OpError::shape("the depth is not one size")),
    };
    if values.n_elements() != 2 {
        return Err(OpError::shape("the values are not a pair of off and on"));
    }
    let axis = axis(op.node.int("axis", -1), indices.shape().len() + 1)?;
    let mut shape = indices.shape().to_vec();
    shape.insert(axis, depth);
    count(&shape)?;
    let list = Numbers::read(indices)?.into_floats();
    let strides = super::common::index::strides(indices.shape());
    let choices = coordinates(&shape).map(|mut at| {
        let along = at.remove(axis);
        let index = list[super::common::index::flat(&at, &strides)] as i64;
        // An index out of range gives a vector with nothing on.
        let wrapped = if index < 0 { index + depth as i64 } else { index };
        usize::from(wrapped == along as i64)
    });
    Ok(vec![take(values, &shape, choices)?])
}
