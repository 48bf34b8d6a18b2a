//! The gradient rule of `RotaryEmbedding`.

use planish_ir::{Node, ValueId};

use crate::{GradNode, GradScope, OpError};

/// A rotation is orthogonal: the gradient is turned back, by the opposite angle.
pub(super) fn grad(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    if node.wants(1) || node.wants(2) {
        return Err(OpError::unsupported("no gradient of the cosines and sines of a rotation"));
    }
    let mut gradients = node.nothing();
    let Some(dy) = node.of_output(0) else { return Ok(gradients) };
    let opposite = scope.op("Neg", &[node.input(2)?])?;
    let mut inputs = vec![Some(dy), Some(node.input(1)?), Some(opposite)];
    inputs.extend(node.op.node.input(3).map(Some));
    let mut rotation = Node::new("RotaryEmbedding", inputs);
    rotation.attributes.clone_from(&node.op.node.attributes);
    gradients[0] = Some(scope.node("grad_rotary", rotation)?);
    Ok(gradients)
}
