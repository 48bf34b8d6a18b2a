//! The gradient of `MatMul`: dA = dY · Bᵀ, dB = Aᵀ · dY, summed over what was broadcast.

use planish_ir::ValueId;

use crate::{GradNode, GradScope, OpError};

pub(super) fn matmul(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let (mut dy, mut a, mut b) = (node.gradient()?, node.input(0)?, node.input(1)?);
    // A vector takes part as a matrix of one row or column, which the result lacks.
    if scope.rank(b)? == 1 {
        b = scope.unsqueeze(b, &[1])?;
        dy = scope.unsqueeze(dy, &[-1])?;
    }
    if scope.rank(a)? == 1 {
        a = scope.unsqueeze(a, &[0])?;
        dy = scope.unsqueeze(dy, &[-2])?;
    }
    node.each(|i| {
        let gradient = if i == 0 { of_left(scope, a, b, dy)? } else { of_right(scope, a, b, dy)? };
        scope.reshape_like(gradient, node.input(i)?)
    })
}

fn of_left(scope: &mut GradScope, a: ValueId, b: ValueId, dy: ValueId) -> Result<ValueId, OpError> {
    let product = scope.matmul((dy, false), (b, true))?;
    scope.reduce_to(product, a)
}

/// Of a weight, which all rows share: one product over all of them.
fn of_right(
    scope: &mut GradScope,
    a: ValueId,
    b: ValueId,
    dy: ValueId,
) -> Result<ValueId, OpError> {
    let last_is_known = |value| scope.fact(value).dim(-1).is_some_and(|d| d.as_const().is_some());
    if scope.rank(b)? == 2 && last_is_known(a) && last_is_known(dy) {
        let (a, dy) = (scope.as_rows(a)?, scope.as_rows(dy)?);
        return scope.matmul((a, true), (dy, false));
    }
    let product = scope.matmul((a, true), (dy, false))?;
    scope.reduce_to(product, b)
}
