//! Gradients of `Softmax` and `LogSoftmax` over a single axis.

use planish_ir::{Node, ValueId};

use super::SINGLE_AXIS;
use crate::{GradNode, GradScope, OpError};

type Gradients = Result<Vec<Option<ValueId>>, OpError>;

/// dX = Y · (dY − Σ dY · Y).
pub(super) fn softmax(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (dy, y) = (node.gradient()?, node.output(0)?);
    node.first(|| {
        let product = scope.op("Mul", &[dy, y])?;
        let sum = sum(scope, node, product)?;
        let rest = scope.op("Sub", &[dy, sum])?;
        scope.op("Mul", &[y, rest])
    })
}

/// dX = dY − exp(Y) · Σ dY.
pub(super) fn log_softmax(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (dy, y) = (node.gradient()?, node.output(0)?);
    node.first(|| {
        let sum = sum(scope, node, dy)?;
        let probabilities = scope.op("Exp", &[y])?;
        let part = scope.op("Mul", &[probabilities, sum])?;
        scope.op("Sub", &[dy, part])
    })
}

/// The sum along the axis of the softmax, which stays with size 1.
fn sum(scope: &mut GradScope, node: &GradNode, value: ValueId) -> Result<ValueId, OpError> {
    if node.op.opset < SINGLE_AXIS {
        return Err(OpError::unsupported("before opset 13 it runs over several axes"));
    }
    let axes = scope.ints(&[node.op.node.int("axis", -1)]);
    scope.node("grad_sum", Node::new("ReduceSum", vec![Some(value), Some(axes)]))
}
