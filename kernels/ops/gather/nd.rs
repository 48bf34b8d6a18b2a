//! `GatherND`: slices at index tuples.

use planish_ir::Tensor;

use crate::op::required as input;
use crate::ops::common::facts::required;
use crate::ops::common::index::{count, flat, strides, wrap};
use crate::ops::common::pick::take;
use crate::{Fact, OpError, OpNode};

/// How the axes of data [batch..., indexed..., inner...] and indices [batch..., outer..., tuple]
/// go together.
pub(super) struct Axes {
    pub batch: usize,
    pub tuple: usize,
}

pub(super) fn split(
    op: &OpNode,
    data: usize,
    indices: usize,
    tuple: usize,
) -> Result<Axes, OpError> {
    let batch = usize::try_from(op.node.int("batch_dims", 0)).unwrap_or(usize::MAX);
    if batch < indices && batch.checked_add(tuple).is_some_and(|used| used <= data) {
        Ok(Axes { batch, tuple })
    } else {
        Err(OpError::shape(format!(
            "index tuples of {tuple} with {batch} batch axes for data of rank {data}"
        )))
    }
}

pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (data, indices) = (required(inputs, 0)?, required(inputs, 1)?);
    let (Some(shape), Some(at)) = (&data.shape, &indices.shape) else {
        return Ok(vec![Fact::new(data.dtype, None)]);
    };
    let Some(tuple) = at.last().and_then(|dim| dim.as_usize()) else {
        return Ok(vec![Fact::new(data.dtype, None)]);
    };
    let axes = split(op, shape.len(), at.len(), tuple)?;
    let gathered = [&at[..at.len() - 1], &shape[axes.batch + axes.tuple..]].concat();
    Ok(vec![Fact::new(data.dtype, Some(gathered))])
}

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (data, indices) = (input(inputs, 0)?, input(inputs, 1)?);
    let (shape, at) = (data.shape(), indices.shape());
    let tuple = *at.last().ok_or_else(|| OpError::shape("the indices are a scalar"))?;
    let axes = split(op, shape.len(), at.len(), tuple)?;
    if shape[..axes.batch] != at[..axes.batch] {
        return Err(OpError::shape(format!("the batch axes of {shape:?} and {at:?} differ")));
    }
    let gathered = [&at[..at.len() - 1], &shape[axes.batch + axes.tuple..]].concat();
    let inner = count(&shape[axes.batch + axes.tuple..])?;
    let n_tuples = count(&at[..at.len() - 1])?;
    let per_batch = count(&at[axes.batch..at.len() - 1])?;
    let batch_size = count(&shape[axes.batch..])?;
    let list = indices.to_i64_vec()?;
    let starts = (0..n_tuples).map(|i| {
        let within = start(&shape[axes.batch..], &list[i * tuple..(i + 1) * tuple])?;
        Ok(i / per_batch * batch_size + within)
    });
    let starts: Vec<usize> = starts.collect::<Result<_, OpError>>()?;
    Ok(vec![take(data, &gathered, starts.into_iter().flat_map(|s| s..s + inner))?])
}

/// Flat index of the first element that a tuple names in a tensor of shape `shape`.
///
/// # Errors
/// If an index is out of bounds.
pub(in crate::ops) fn start(shape: &[usize], tuple: &[i64]) -> Result<usize, OpError> {
    let at: Vec<usize> =
        tuple.iter().zip(shape).map(|(i, size)| wrap(*i, *size)).collect::<Result<_, _>>()?;
    Ok(flat(&at, &strides(shape)))
}
