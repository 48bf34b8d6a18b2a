//! `GatherElements`: one element for each index.

use planish_ir::Tensor;

use crate::op::required as input;
use crate::ops::common::axes::axis;
use crate::ops::common::facts::required;
use crate::ops::common::index::{coordinates, flat, strides, wrap};
use crate::ops::common::pick::take;
use crate::{Fact, OpError, OpNode};

/// The result has the shape of the indices.
pub(super) fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (data, indices) = (required(inputs, 0)?, required(inputs, 1)?);
    Ok(vec![Fact::new(data.dtype, indices.shape.clone())])
}

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (data, indices) = (input(inputs, 0)?, input(inputs, 1)?);
    let sources = sources(op, data.shape(), indices)?;
    Ok(vec![take(data, indices.shape(), sources.into_iter())?])
}

/// For each index, the flat index of the element of a tensor of shape `shape` that it names.
pub(in crate::ops) fn sources(
    op: &OpNode,
    shape: &[usize],
    indices: &Tensor,
) -> Result<Vec<usize>, OpError> {
    let axis = axis(op.node.int("axis", 0), shape.len())?;
    let fits = indices.shape().len() == shape.len()
        && (0..shape.len()).all(|i| i == axis || indices.shape()[i] <= shape[i]);
    if !fits {
        return Err(OpError::shape(format!(
            "indices of shape {:?} for data of shape {shape:?}",
            indices.shape()
        )));
    }
    let steps = strides(shape);
    let list = indices.to_i64_vec()?;
    let source = |(mut at, index): (Vec<usize>, &i64)| {
        at[axis] = wrap(*index, shape[axis])?;
        Ok(flat(&at, &steps))
    };
    coordinates(indices.shape()).zip(&list).map(source).collect()
}
