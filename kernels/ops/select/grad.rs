//! The gradient of `Where`: dY for the tensor that each element was taken from.

use planish_ir::ValueId;

use crate::{GradNode, GradScope, OpError};

pub(super) fn select(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let (dy, condition) = (node.gradient()?, node.input(0)?);
    node.each(|i| {
        let taken = match i {
            1 => scope.keep_where(condition, dy)?,
            _ => scope.drop_where(condition, dy)?,
        };
        scope.reduce_to(taken, node.input(i)?)
    })
}
