//! Gradients of elementwise operators on one operand: dX = dY · slope.

use std::f64::consts::PI;

use planish_ir::ValueId;

use crate::{GradNode, GradScope, OpError};

type Gradients = Result<Vec<Option<ValueId>>, OpError>;
type Slope = Result<ValueId, OpError>;

/// dX = dY · `slope(X, Y)`.
fn times(
    scope: &mut GradScope,
    node: &GradNode,
    slope: impl FnOnce(&mut GradScope, ValueId, ValueId) -> Slope,
) -> Gradients {
    let (dy, x, y) = (node.gradient()?, node.input(0)?, node.output(0)?);
    node.first(|| {
        let slope = slope(scope, x, y)?;
        scope.op("Mul", &[dy, slope])
    })
}

pub(super) fn neg(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let dy = node.gradient()?;
    node.first(|| scope.op("Neg", &[dy]))
}

/// sign(x); 0 at 0.
pub(super) fn abs(scope: &mut GradScope, node: &GradNode) -> Gradients {
    times(scope, node, |scope, x, _| scope.op("Sign", &[x]))
}

/// 1 / 2y.
pub(super) fn sqrt(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (dy, y) = (node.gradient()?, node.output(0)?);
    node.first(|| {
        let half = scope.scale(dy, 0.5)?;
        scope.op("Div", &[half, y])
    })
}

/// −y².
pub(super) fn reciprocal(scope: &mut GradScope, node: &GradNode) -> Gradients {
    times(scope, node, |scope, _, y| {
        let square = scope.op("Mul", &[y, y])?;
        scope.op("Neg", &[square])
    })
}

/// y.
pub(super) fn exp(scope: &mut GradScope, node: &GradNode) -> Gradients {
    times(scope, node, |_, _, y| Ok(y))
}

/// 1 / x.
pub(super) fn log(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (dy, x) = (node.gradient()?, node.input(0)?);
    node.first(|| scope.op("Div", &[dy, x]))
}

/// 2/√π · exp(−x²).
pub(super) fn erf(scope: &mut GradScope, node: &GradNode) -> Gradients {
    times(scope, node, |scope, x, _| {
        let square = scope.op("Mul", &[x, x])?;
        let exponent = scope.op("Neg", &[square])?;
        let bell = scope.op("Exp", &[exponent])?;
        scope.scale(bell, 2.0 / PI.sqrt())
    })
}

/// 1 − y².
pub(super) fn tanh(scope: &mut GradScope, node: &GradNode) -> Gradients {
    times(scope, node, |scope, _, y| {
        let square = scope.op("Mul", &[y, y])?;
        one_minus(scope, square)
    })
}

/// y · (1 − y).
pub(super) fn sigmoid(scope: &mut GradScope, node: &GradNode) -> Gradients {
    times(scope, node, |scope, _, y| {
        let rest = one_minus(scope, y)?;
        scope.op("Mul", &[y, rest])
    })
}

/// 1 above 0, else 0.
pub(super) fn relu(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (dy, y) = (node.gradient()?, node.output(0)?);
    node.first(|| {
        let zero = scope.number(0.0, y)?;
        let positive = scope.op("Greater", &[y, zero])?;
        scope.keep_where(positive, dy)
    })
}

/// α below 0, else 1.
pub(super) fn leaky_relu(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (dy, x) = (node.gradient()?, node.input(0)?);
    let alpha = f64::from(node.op.node.float("alpha", 0.01));
    node.first(|| {
        let scaled = scope.scale(dy, alpha)?;
        below_zero(scope, x, scaled, dy)
    })
}

/// y + α below 0, else 1.
pub(super) fn elu(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (dy, x, y) = (node.gradient()?, node.input(0)?, node.output(0)?);
    let alpha = f64::from(node.op.node.float("alpha", 1.0));
    node.first(|| {
        let alpha = scope.number(alpha, y)?;
        let slope = scope.op("Add", &[y, alpha])?;
        let product = scope.op("Mul", &[dy, slope])?;
        below_zero(scope, x, product, dy)
    })
}

/// sigmoid(x).
pub(super) fn softplus(scope: &mut GradScope, node: &GradNode) -> Gradients {
    times(scope, node, |scope, x, _| scope.op("Sigmoid", &[x]))
}

/// −sin x.
pub(super) fn cos(scope: &mut GradScope, node: &GradNode) -> Gradients {
    times(scope, node, |scope, x, _| {
        let sine = scope.op("Sin", &[x])?;
        scope.op("Neg", &[sine])
    })
}

/// cos x.
pub(super) fn sin(scope: &mut GradScope, node: &GradNode) -> Gradients {
    times(scope, node, |scope, x, _| scope.op("Cos", &[x]))
}

fn one_minus(scope: &mut GradScope, value: ValueId) -> Slope {
    let one = scope.number(1.0, value)?;
    scope.op("Sub", &[one, value])
}

/// `below` where x < 0, else `above`.
fn below_zero(scope: &mut GradScope, x: ValueId, below: ValueId, above: ValueId) -> Slope {
    let zero = scope.number(0.0, x)?;
    let negative = scope.op("Less", &[x, zero])?;
    scope.op("Where", &[negative, below, above])
}
