//! Gradients of reductions: what comes back along a reduced axis is repeated along it.

use planish_ir::{Node, ValueId};

use super::reduced;
use crate::ops::common::axes::{IntList, list_fact};
use crate::{GradNode, GradScope, OpError};

type Gradients = Result<Vec<Option<ValueId>>, OpError>;

/// A reduction with everything brought to the rank of its input.
struct Reduction {
    x: ValueId,
    /// The result, the reduced axes of size 1.
    y: ValueId,
    /// Its gradient.
    dy: ValueId,
    axes: Vec<i64>,
}

impl Reduction {
    fn new(scope: &mut GradScope, node: &GradNode) -> Result<Self, OpError> {
        let (x, y, dy) = (node.input(0)?, node.output(0)?, node.gradient()?);
        let given = match list_fact(&node.op, &node.facts(scope), 1, "axes") {
            IntList::Known(list) => Some(list),
            IntList::Absent => None,
            IntList::Unknown => return Err(OpError::unsupported("its axes are not constant")),
        };
        let reduced = reduced(&node.op, given, scope.rank(x)?)?;
        let axes: Vec<i64> = (0..).zip(&reduced).filter(|(_, r)| **r).map(|(i, _)| i).collect();
        if node.op.node.int("keepdims", 1) != 0 || axes.is_empty() {
            return Ok(Self { x, y, dy, axes });
        }
        let (y, dy) = (scope.unsqueeze(y, &axes)?, scope.unsqueeze(dy, &axes)?);
        Ok(Self { x, y, dy, axes })
    }

    /// `value` summed as the input was reduced.
    fn sum(&self, scope: &mut GradScope, value: ValueId) -> Result<ValueId, OpError> {
        let axes = scope.ints(&self.axes);
        let node = Node::new("ReduceSum", vec![Some(value), Some(axes)]);
        scope.node("grad_sum", node.with("keepdims", 1i64).with("noop_with_empty_axes", 1i64))
    }

    /// The number of elements that go into one of the result, of the type of `x`.
    fn count(&self, scope: &mut GradScope) -> Result<ValueId, OpError> {
        let sizes: Option<i64> = self
            .axes
            .iter()
            .try_fold(1i64, |n, axis| n.checked_mul(scope.fact(self.x).dim(*axis)?.as_const()?));
        if let Some(n) = sizes {
            return scope.number(n as f64, self.x);
        }
        let n = (scope.op("Size", &[self.x])?, scope.op("Size", &[self.y])?);
        let n = scope.op("Div", &[n.0, n.1])?;
        scope.op("CastLike", &[n, self.x])
    }
}

/// dX = dY.
pub(super) fn sum(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let reduction = Reduction::new(scope, node)?;
    node.first(|| scope.expand_like(reduction.dy, reduction.x))
}

/// dX = dY / n.
pub(super) fn mean(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let reduction = Reduction::new(scope, node)?;
    node.first(|| {
        let n = reduction.count(scope)?;
        let share = scope.op("Div", &[reduction.dy, n])?;
        scope.expand_like(share, reduction.x)
    })
}

/// `ReduceMax` and `ReduceMin`: equal extreme elements share dY evenly.
pub(super) fn extremum(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let reduction = Reduction::new(scope, node)?;
    node.first(|| {
        let hits = scope.op("Equal", &[reduction.x, reduction.y])?;
        let ones = scope.op("CastLike", &[hits, reduction.x])?;
        let n = reduction.sum(scope, ones)?;
        let share = scope.op("Div", &[reduction.dy, n])?;
        scope.op("Mul", &[ones, share])
    })
}

/// dX = 2 · X · dY.
pub(super) fn sum_square(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let reduction = Reduction::new(scope, node)?;
    node.first(|| {
        let double = scope.scale(reduction.dy, 2.0)?;
        scope.op("Mul", &[reduction.x, double])
    })
}

/// dX = sign(X) · dY.
pub(super) fn l1(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let reduction = Reduction::new(scope, node)?;
    node.first(|| {
        let sign = scope.op("Sign", &[reduction.x])?;
        scope.op("Mul", &[sign, reduction.dy])
    })
}

/// dX = X · dY / Y; 0 where all elements are 0.
pub(super) fn l2(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let reduction = Reduction::new(scope, node)?;
    node.first(|| {
        let zero = scope.number(0.0, reduction.y)?;
        let is_zero = scope.op("Equal", &[reduction.y, zero])?;
        let unit = scope.op("Div", &[reduction.dy, reduction.y])?;
        let unit = scope.drop_where(is_zero, unit)?;
        scope.op("Mul", &[reduction.x, unit])
    })
}
