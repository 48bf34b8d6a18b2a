//! Small helpers of shape inference.

use planish_ir::{DataType, Dim};

use crate::{Fact, OpError};

pub(in crate::ops) use crate::ops::common::facts::{optional, required};

/// Type and shape of `fact` without what is known of the contents.
pub(in crate::ops) fn like(fact: &Fact) -> Fact {
    Fact::new(fact.dtype, fact.shape.clone())
}

/// One output of the type and shape of the first input.
pub(in crate::ops) fn same_as_first(inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    Ok(vec![like(required(inputs, 0)?)])
}

/// The shape of `fact` with its last size replaced.
pub(in crate::ops) fn with_last(fact: &Fact, last: Dim) -> Option<Vec<Dim>> {
    let mut shape = fact.shape.clone()?;
    *shape.last_mut()? = last;
    Some(shape)
}

/// Fails if both sizes are known and differ.
pub(in crate::ops) fn same_size(
    what: &str,
    a: Option<&Dim>,
    b: Option<&Dim>,
) -> Result<(), OpError> {
    match (a.and_then(Dim::as_const), b.and_then(Dim::as_const)) {
        (Some(a), Some(b)) if a != b => {
            Err(OpError::shape(format!("{what} has {b} elements where {a} are needed")))
        }
        _ => Ok(()),
    }
}

/// Fails if the element type is known and not among `allowed`.
pub(in crate::ops) fn of_type(
    what: &str,
    fact: &Fact,
    allowed: &[DataType],
) -> Result<(), OpError> {
    match fact.dtype {
        Some(dtype) if !allowed.contains(&dtype) => {
            Err(OpError::unsupported(format!("{what} can't be {dtype}")))
        }
        _ => Ok(()),
    }
}

/// `axis` counted from the front, for a tensor of `rank` axes; `rank` itself is allowed where
/// `inclusive`.
pub(in crate::ops) fn axis(axis: i64, rank: usize, inclusive: bool) -> Result<usize, OpError> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_front)
        .ok()
        .filter(|a| *a < rank || (inclusive && *a == rank))
        .ok_or_else(|| OpError::shape(format!("axis {axis} of a tensor of {rank} axes")))
}
