//! The gradient of `Concat`: the parts of dY.

use planish_ir::{Node, ValueId};

use super::join_axis;
use crate::{GradNode, GradScope, OpError};

pub(super) fn concat(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let dy = node.gradient()?;
    let axis = join_axis(&node.op, scope.rank(dy)?)?;
    let sizes = (0..node.op.node.inputs.len()).map(|i| scope.size_of(node.input(i)?, axis));
    let sizes: Vec<ValueId> = sizes.collect::<Result<_, _>>()?;
    let n = sizes.len();
    let sizes = Node::new("Concat", sizes.into_iter().map(Some).collect()).with("axis", 0i64);
    let sizes = scope.node("grad_sizes", sizes)?;
    let split = Node::new("Split", vec![Some(dy), Some(sizes)]).with("axis", axis as i64);
    let parts = scope.node_n("grad_part", split, n)?;
    node.each(|i| Ok(parts[i]))
}
