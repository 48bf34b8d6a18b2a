//! The target shape of `Flatten`.

use planish_ir::Dim;

use super::viewed;
use crate::ops::common::facts;
use crate::ops::common::index::count;
use crate::{Fact, OpError, OpNode};

/// The first of the axes that go into the second size.
fn axis(op: &OpNode, rank: usize) -> Result<usize, OpError> {
    let axis = op.node.int("axis", 1);
    let index = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(index)
        .ok()
        .filter(|axis| *axis <= rank)
        .ok_or_else(|| OpError::shape(format!("axis {axis} is out of range for rank {rank}")))
}

pub(super) fn target(op: &OpNode, shape: &[usize]) -> Result<Vec<usize>, OpError> {
    let (outer, inner) = shape.split_at(axis(op, shape.len())?);
    Ok(vec![count(outer)?, count(inner)?])
}

pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = facts::required(inputs, 0)?;
    let shape: Vec<Dim> = match &x.shape {
        Some(shape) => {
            let (outer, inner) = shape.split_at(axis(op, shape.len())?);
            vec![facts::product(outer), facts::product(inner)]
        }
        None => facts::unknown_shape(op, 2),
    };
    Ok(vec![viewed(x, Some(shape))])
}
