//! The target shapes of `Squeeze` and `Unsqueeze`.

use planish_ir::{Dim, Tensor};

use super::viewed;
use crate::ops::common::axes::{IntList, axes, list, list_fact};
use crate::ops::common::facts;
use crate::{Fact, OpError, OpNode};

/// `shape` without the axes listed, or without those of size 1 if none are.
fn without<T: Clone + std::fmt::Debug>(
    shape: &[T],
    list: Option<&[i64]>,
    is_one: impl Fn(&T) -> Option<bool>,
) -> Result<Option<Vec<T>>, OpError> {
    let Some(list) = list else {
        let keep: Option<Vec<bool>> = shape.iter().map(|size| Some(!is_one(size)?)).collect();
        let kept = |keep: Vec<bool>| {
            shape.iter().zip(keep).filter(|(_, keep)| *keep).map(|(size, _)| size.clone()).collect()
        };
        return Ok(keep.map(kept));
    };
    let axes = axes(list, shape.len())?;
    if let Some(axis) = axes.iter().find(|axis| is_one(&shape[**axis]) == Some(false)) {
        return Err(OpError::shape(format!("axis {axis} of shape {shape:?} is not of size 1")));
    }
    let kept = shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    Ok(Some(kept.map(|(_, size)| size.clone()).collect()))
}

/// `shape` with sizes of 1 put in, so that they end up at the axes listed.
fn with<T: Clone>(shape: &[T], list: &[i64], one: &T) -> Result<Vec<T>, OpError> {
    let rank = shape.len() + list.len();
    let axes = axes(list, rank)?;
    let mut rest = shape.iter();
    let size = |axis: usize| if axes.contains(&axis) { one } else { rest.next().unwrap_or(one) };
    Ok((0..rank).map(size).cloned().collect())
}

pub(super) fn squeezed(
    op: &OpNode,
    inputs: &[Option<Tensor>],
    shape: &[usize],
) -> Result<Vec<usize>, OpError> {
    let list = list(op, inputs, 1, "axes")?;
    Ok(without(shape, list.as_deref(), |size| Some(*size == 1))?.unwrap_or_default())
}

pub(super) fn unsqueezed(
    op: &OpNode,
    inputs: &[Option<Tensor>],
    shape: &[usize],
) -> Result<Vec<usize>, OpError> {
    with(shape, &list(op, inputs, 1, "axes")?.ok_or(OpError::MissingInput(1))?, &1)
}

pub(super) fn infer_squeeze(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = facts::required(inputs, 0)?;
    let is_one = |dim: &Dim| dim.as_const().map(|size| size == 1);
    let shape = match (&x.shape, list_fact(op, inputs, 1, "axes")) {
        (Some(shape), IntList::Known(list)) => without(shape, Some(&list), is_one)?,
        // A size that is open is taken to be no 1: exporters that squeeze a size name its axis.
        (Some(shape), IntList::Absent) => {
            without(shape, None, |dim| Some(is_one(dim).unwrap_or(false)))?
        }
        _ => None,
    };
    Ok(vec![viewed(x, shape)])
}

pub(super) fn infer_unsqueeze(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = facts::required(inputs, 0)?;
    let shape = match (&x.shape, list_fact(op, inputs, 1, "axes")) {
        (Some(shape), IntList::Known(list)) => Some(with(shape, &list, &Dim::from(1i64))?),
        (_, IntList::Absent) => return Err(OpError::MissingInput(1)),
        (Some(shape), IntList::Unknown) => facts::optional(inputs, 1)
            .and_then(facts::list_length)
            .map(|n| facts::unknown_shape(op, shape.len() + n)),
        _ => None,
    };
    Ok(vec![viewed(x, shape)])
}
