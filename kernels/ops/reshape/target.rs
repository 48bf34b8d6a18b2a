//! The target shape of `Reshape`.

use planish_ir::{Dim, Tensor};

use super::viewed;
use crate::infer::unknown_dim;
use crate::op::optional;
use crate::ops::common::axes::{IntList, list_fact};
use crate::ops::common::facts;
use crate::{Fact, OpError, OpNode};

/// The target, from the second input or, before opset 5, the attribute.
pub(super) fn target(
    op: &OpNode,
    inputs: &[Option<Tensor>],
    shape: &[usize],
) -> Result<Vec<usize>, OpError> {
    let wanted = match (optional(inputs, 1), op.node.ints("shape")) {
        (Some(tensor), _) => tensor.to_i64_vec()?,
        (None, Some(list)) => list.to_vec(),
        (None, None) => return Err(OpError::MissingInput(1)),
    };
    let wanted: Vec<Dim> = wanted.into_iter().map(Dim::from).collect();
    let from: Vec<Dim> = shape.iter().map(|size| Dim::from(*size)).collect();
    let solved = solve(op, &wanted, Some(&from))?;
    let misfit = || OpError::shape(format!("the shape {shape:?} can't become {wanted:?}"));
    solved.iter().map(|dim| dim.as_usize().ok_or_else(misfit)).collect()
}

pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = facts::required(inputs, 0)?;
    let wanted = match facts::optional(inputs, 1).and_then(|fact| fact.dims.clone()) {
        Some(dims) => Some(dims),
        None => match list_fact(op, inputs, 1, "shape") {
            IntList::Known(list) => Some(list.into_iter().map(Dim::from).collect()),
            IntList::Absent => return Err(OpError::MissingInput(1)),
            IntList::Unknown => None,
        },
    };
    let shape = match wanted {
        Some(wanted) => Some(solve(op, &wanted, x.shape.as_deref())?),
        // The length of the target is the rank of the result.
        None => facts::optional(inputs, 1)
            .and_then(facts::list_length)
            .map(|rank| facts::unknown_shape(op, rank)),
    };
    Ok(vec![viewed(x, shape)])
}

/// Replaces 0 by the size of the same axis of `from`, and −1 by what is left over.
fn solve(op: &OpNode, wanted: &[Dim], from: Option<&[Dim]>) -> Result<Vec<Dim>, OpError> {
    let keeps_zero = op.node.int("allowzero", 0) != 0;
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (axis, dim) in wanted.iter().enumerate() {
        shape.push(match dim.as_const() {
            Some(0) if !keeps_zero => match from {
                Some(from) => from.get(axis).cloned().ok_or_else(|| {
                    OpError::shape(format!("0 at axis {axis}, but the input has shape {from:?}"))
                })?,
                None => unknown_dim(op.node, axis),
            },
            Some(-1) if open.is_some() => {
                return Err(OpError::shape(format!("the target {wanted:?} has −1 twice")));
            }
            Some(-1) => {
                open = Some(axis);
                Dim::from(1i64)
            }
            Some(size) if size < 0 => {
                return Err(OpError::shape(format!("the target {wanted:?} has a negative size")));
            }
            _ => dim.clone(),
        });
    }
    if let Some(axis) = open {
        let rest = facts::product(&shape);
        shape[axis] = match from {
            Some(from) => left_over(op, axis, &facts::product(from), &rest)?,
            None => unknown_dim(op.node, axis),
        };
    }
    Ok(shape)
}

/// What −1 stands for when `total` elements are spread over the other axes' `rest`.
fn left_over(op: &OpNode, axis: usize, total: &Dim, rest: &Dim) -> Result<Dim, OpError> {
    match (total.as_const(), rest.as_const()) {
        (Some(0), Some(0)) => Ok(Dim::from(0i64)),
        (Some(total), Some(rest)) if total.checked_rem(rest) != Some(0) => {
            Err(OpError::shape(format!("{total} elements can't be divided by {rest}")))
        }
        _ => Ok(total.div_exact(rest).unwrap_or_else(|| unknown_dim(op.node, axis))),
    }
}
