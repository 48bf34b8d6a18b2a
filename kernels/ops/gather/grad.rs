//! The gradient of `Gather`: dY added up at the places that the slices came from.

use planish_ir::{Node, ValueId};

use crate::ops::common::axes::axis;
use crate::{GradNode, GradScope, OpError};

pub(super) fn gather(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let (dy, data, indices) = (node.gradient()?, node.input(0)?, node.input(1)?);
    let (rank, n_indices) = (scope.rank(data)?, scope.rank(indices)?);
    let axis = axis(node.op.node.int("axis", 0), rank)?;
    node.first(|| {
        // `ScatterND` adds along the first axes, so the axis of the indices is brought there.
        let updates = move_axes(scope, dy, axis, n_indices, 0)?;
        let zeros = scope.zeros_like(data)?;
        let zeros = move_axes(scope, zeros, axis, 1, 0)?;
        let tuples = scope.unsqueeze(indices, &[-1])?;
        let scatter = Node::new("ScatterND", vec![Some(zeros), Some(tuples), Some(updates)]);
        let sum = scope.node("grad_scattered", scatter.with("reduction", "add"))?;
        move_axes(scope, sum, 0, 1, axis)
    })
}

/// `value` with the `n` axes from `from` on brought to `to`.
fn move_axes(
    scope: &mut GradScope,
    value: ValueId,
    from: usize,
    n: usize,
    to: usize,
) -> Result<ValueId, OpError> {
    if from == to {
        return Ok(value);
    }
    let mut order: Vec<i64> = (0..scope.rank(value)? as i64).collect();
    let moved: Vec<i64> = order.drain(from..from + n).collect();
    order.splice(to..to, moved);
    scope.transpose(value, &order)
}
