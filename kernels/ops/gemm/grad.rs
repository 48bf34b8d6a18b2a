//! The gradient of `Gemm`: d op(A) = α · dY · op(B)ᵀ, d op(B) = α · op(A)ᵀ · dY, dC = β · dY summed
//! over what was broadcast.

use planish_ir::ValueId;

use crate::{GradNode, GradScope, OpError};

pub(super) fn gemm(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let (dy, a, b) = (node.gradient()?, node.input(0)?, node.input(1)?);
    let flag = |name| node.op.node.int(name, 0) != 0;
    let (trans_a, trans_b) = (flag("transA"), flag("transB"));
    node.each(|i| {
        let (gradient, factor) = match i {
            0 if trans_a => (scope.matmul((b, trans_b), (dy, true))?, "alpha"),
            0 => (scope.matmul((dy, false), (b, !trans_b))?, "alpha"),
            1 if trans_b => (scope.matmul((dy, true), (a, trans_a))?, "alpha"),
            1 => (scope.matmul((a, !trans_a), (dy, false))?, "alpha"),
            _ => (scope.reduce_to(dy, node.input(i)?)?, "beta"),
        };
        let factor = node.op.node.float(factor, 1.0);
        if factor == 1.0 { Ok(gradient) } else { scope.scale(gradient, f64::from(factor)) }
    })
}
