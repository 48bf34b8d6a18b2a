//! Axes, which ONNX lets count from the end.

use planish_ir::Tensor;

use crate::op::optional;
use crate::{Fact, OpError, OpNode};

/// `axis` as an index below `rank`.
///
/// # Errors
/// If it is not in −rank..rank.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let index = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(index)
        .ok()
        .filter(|index| *index < rank)
        .ok_or_else(|| OpError::shape(format!("axis {axis} is out of range for rank {rank}")))
}

/// As [`axis`], for a list without repetitions; the order is kept.
///
/// # Errors
/// If an axis is out of range or occurs twice.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let mut indices = Vec::with_capacity(list.len());
    for item in list {
        let index = axis(*item, rank)?;
        if indices.contains(&index) {
            return Err(OpError::shape(format!("axis {item} occurs twice in {list:?}")));
        }
        indices.push(index);
    }
    Ok(indices)
}

/// Integers that newer operator sets take as an input and older ones as an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum IntList {
    /// Neither is there.
    Absent,
    /// Known only when the graph runs.
    Unknown,
    /// The integers.
    Known(Vec<i64>),
}

/// The list at input `index` or attribute `name`, as far as inference can know it.
pub(crate) fn list_fact(op: &OpNode, inputs: &[Fact], index: usize, name: &str) -> IntList {
    match inputs.get(index) {
        Some(fact) if !fact.absent => fact.ints().map_or(IntList::Unknown, IntList::Known),
        _ => attribute(op, name),
    }
}

/// The list at input `index` or attribute `name` of an evaluation.
///
/// # Errors
/// If the input holds no integers.
pub(crate) fn list(
    op: &OpNode,
    inputs: &[Option<Tensor>],
    index: usize,
    name: &str,
) -> Result<Option<Vec<i64>>, OpError> {
    if let Some(tensor) = optional(inputs, index) {
        return Ok(Some(tensor.to_i64_vec()?));
    }
    Ok(match attribute(op, name) {
        IntList::Known(list) => Some(list),
        _ => None,
    })
}

fn attribute(op: &OpNode, name: &str) -> IntList {
    op.node.ints(name).map_or(IntList::Absent, |list| IntList::Known(list.to_vec()))
}

/// Sizes of a shape that came as integers.
///
/// # Errors
/// If one is negative.
pub(crate) fn sizes(list: &[i64]) -> Result<Vec<usize>, OpError> {
    list.iter()
        .map(|size| usize::try_from(*size))
        .collect::<Result<_, _>>()
        .map_err(|_| OpError::shape(format!("the shape {list:?} has a negative size")))
}
