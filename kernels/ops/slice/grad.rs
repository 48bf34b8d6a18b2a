//! The gradient of `Slice` at steps of 1: dY with zeros put where the rest was.

use planish_ir::{Node, ValueId};

use super::bounds;
use crate::ops::common::axes::{IntList, axis, list_fact};
use crate::{Fact, GradNode, GradScope, OpError};

pub(super) fn slice(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let (dy, x) = (node.gradient()?, node.input(0)?);
    let facts = node.facts(scope);
    let list = |index, name| list_fact(&node.op, &facts, index, name);
    let (starts, ends) = (constant(list(1, "starts"))?, constant(list(2, "ends"))?);
    let axes = match list(3, "axes") {
        IntList::Absent => (0..starts.len() as i64).collect(),
        given => constant(given)?,
    };
    let steps = match list(4, "steps") {
        IntList::Absent => vec![1; starts.len()],
        given => constant(given)?,
    };
    if steps.iter().any(|step| *step != 1) {
        return Err(OpError::unsupported("it takes steps other than 1"));
    }
    node.first(|| {
        let rank = scope.rank(x)?;
        let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
        for ((start, end), given) in starts.iter().zip(&ends).zip(&axes) {
            let axis = axis(*given, rank)?;
            (before[axis], after[axis]) = left_out(&scope.fact(x), axis, *start, *end)?;
        }
        let pads = scope.ints(&[before, after].concat());
        scope.node("grad_padded", Node::new("Pad", vec![Some(dy), Some(pads)]))
    })
}

fn constant(list: IntList) -> Result<Vec<i64>, OpError> {
    match list {
        IntList::Known(list) => Ok(list),
        _ => Err(OpError::unsupported("its bounds are not constant")),
    }
}

/// The numbers of elements before and after `start..end` along an axis of `x`.
fn left_out(x: &Fact, axis: usize, start: i64, end: i64) -> Result<(i64, i64), OpError> {
    let dim = x.dim(axis as i64);
    if let Some(size) = dim.and_then(|dim| dim.as_usize()) {
        let (start, length, _) = bounds(start, end, 1, size)?;
        return Ok((start as i64, (size - start - length) as i64));
    }
    // To the end of an axis, wherever that is.
    if start == 0 && end >= i64::from(i32::MAX) {
        return Ok((0, 0));
    }
    Err(OpError::unsupported(format!("the size of axis {axis} varies")))
}
