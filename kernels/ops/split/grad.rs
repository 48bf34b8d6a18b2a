//! The gradient of `Split`: those of the parts joined, zeros for parts that the loss does not
//! depend on.

use planish_ir::{Node, ValueId};

use crate::{GradNode, GradScope, OpError};

pub(super) fn split(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    node.first(|| {
        let part = |i| match node.of_output(i) {
            Some(gradient) => Ok(Some(gradient)),
            None => Ok(Some(scope.zeros_like(node.output(i)?)?)),
        };
        let parts = (0..node.op.node.outputs.len()).map(part).collect::<Result<_, OpError>>()?;
        let joined = Node::new("Concat", parts).with("axis", node.op.node.int("axis", 0));
        scope.node("grad_joined", joined)
    })
}
