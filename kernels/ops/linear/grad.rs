//! The gradient of `Linear`: dX = dY · Wᵀ, dW = Xᵀ · dY over all rows, dbias their sum.

use planish_ir::ValueId;

use super::is_transposed;
use crate::{GradNode, GradScope, OpError};

pub(super) fn linear(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let (dy, x, w) = (node.gradient()?, node.input(0)?, node.input(1)?);
    let transposed = is_transposed(&node.op);
    node.each(|i| match i {
        0 => scope.matmul((dy, false), (w, !transposed)),
        1 => {
            let (x, dy) = (scope.as_rows(x)?, scope.as_rows(dy)?);
            let (left, right) = if transposed { (dy, x) } else { (x, dy) };
            scope.matmul((left, true), (right, false))
        }
        _ => scope.reduce_to(dy, node.input(i)?),
    })
}
