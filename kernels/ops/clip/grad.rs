//! The gradient of `Clip`: dY within the bounds, those included, and 0 beyond them.

use planish_ir::ValueId;

use crate::{GradNode, GradScope, OpError};

/// The bounds themselves get no gradient.
pub(super) fn clip(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let (dy, x) = (node.gradient()?, node.input(0)?);
    node.first(|| {
        let mut inside = dy;
        for (index, name, order) in [(1, "min", "Less"), (2, "max", "Greater")] {
            if let Some(bound) = bound(scope, node, index, name)? {
                let beyond = scope.op(order, &[x, bound])?;
                inside = scope.drop_where(beyond, inside)?;
            }
        }
        Ok(inside)
    })
}

/// The bound at input `index` or, before opset 11, in the attribute.
fn bound(
    scope: &mut GradScope,
    node: &GradNode,
    index: usize,
    name: &str,
) -> Result<Option<ValueId>, OpError> {
    let attribute = node.op.node.attributes.get(name).and_then(|a| a.as_float());
    match (node.op.node.input(index), attribute) {
        (Some(bound), _) => Ok(Some(bound)),
        (None, Some(bound)) => Ok(Some(scope.number(f64::from(bound), node.input(0)?)?)),
        (None, None) => Ok(None),
    }
}
