//! The gradient of `Cast` and `CastLike` between floating-point types: dY in the type of X.

use planish_ir::{Node, ValueId};

use crate::{GradNode, GradScope, OpError};

pub(super) fn cast(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let (dy, x) = (node.gradient()?, node.input(0)?);
    let mut gradients = node.nothing();
    // What `CastLike` takes the type of has no part in the result.
    if node.wants(0) {
        let to = i64::from(scope.dtype(x)?.to_onnx());
        let back = Node::new("Cast", vec![Some(dy)]).with("to", to);
        gradients[0] = Some(scope.node("grad_cast", back)?);
    }
    Ok(gradients)
}
