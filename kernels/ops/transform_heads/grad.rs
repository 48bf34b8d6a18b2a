//! The gradient of `TransformHeads`: dX is the heads of dY times Pᵀ, dP the product of all heads'
//! rows, Xᵀ·dY with both as `[-1, d]`.

use planish_ir::{Dim, Node, ValueId};

use crate::{DOMAIN, GradNode, GradScope, OpError};

pub(super) fn rule(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let Some(dy) = node.of_output(0) else { return Ok(node.nothing()) };
    let (x, p) = (node.input(0)?, node.input(1)?);
    let mut gradients = node.nothing();
    if node.wants(0) {
        let transposed = Node::new("Transpose", vec![Some(p)]).with("perm", vec![1i64, 0]);
        let transposed = scope.node("transposed", transposed)?;
        let heads = Node::new("TransformHeads", vec![Some(dy), Some(transposed)]);
        gradients[0] = Some(scope.node("grad_transform_heads", heads.with_domain(DOMAIN))?);
    }
    if node.wants(1) {
        let unknown = || OpError::unsupported("the size of the heads' transform is unknown");
        let d = scope.fact(p).dim(0).and_then(Dim::as_const).ok_or_else(unknown)?;
        let shape = scope.ints(&[-1, d]);
        let (x, dy) = (scope.op("Reshape", &[x, shape])?, scope.op("Reshape", &[dy, shape])?);
        gradients[1] = Some(scope.matmul((x, true), (dy, false))?);
    }
    Ok(gradients)
}
