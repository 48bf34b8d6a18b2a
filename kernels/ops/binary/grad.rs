//! Gradients of arithmetic. What was broadcast is summed back.

use planish_ir::ValueId;

use crate::{GradNode, GradScope, OpError};

type Gradients = Result<Vec<Option<ValueId>>, OpError>;

/// `Add` and `Sum`: dY for every operand.
pub(super) fn add(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let dy = node.gradient()?;
    node.each(|i| scope.reduce_to(dy, node.input(i)?))
}

/// dA = dY, dB = −dY.
pub(super) fn sub(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let dy = node.gradient()?;
    node.each(|i| {
        let sum = scope.reduce_to(dy, node.input(i)?)?;
        if i == 0 { Ok(sum) } else { scope.op("Neg", &[sum]) }
    })
}

/// dA = dY · B, dB = dY · A.
pub(super) fn mul(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let dy = node.gradient()?;
    node.each(|i| {
        let product = scope.op("Mul", &[dy, node.input(1 - i)?])?;
        scope.reduce_to(product, node.input(i)?)
    })
}

/// dA = dY / B, dB = −dY · Y / B.
pub(super) fn div(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (dy, a, b) = (node.gradient()?, node.input(0)?, node.input(1)?);
    let quotient = scope.op("Div", &[dy, b])?;
    node.each(|i| {
        if i == 0 {
            return scope.reduce_to(quotient, a);
        }
        let product = scope.op("Mul", &[quotient, node.output(0)?])?;
        let sum = scope.reduce_to(product, b)?;
        scope.op("Neg", &[sum])
    })
}

/// dA = dY · B · A^(B − 1); the exponent is taken to be constant.
pub(super) fn pow(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (dy, a, b) = (node.gradient()?, node.input(0)?, node.input(1)?);
    node.first(|| {
        let slope = slope_of_power(scope, a, b)?;
        let product = scope.op("Mul", &[dy, slope])?;
        scope.reduce_to(product, a)
    })
}

/// B · A^(B − 1), for a square without the power.
fn slope_of_power(scope: &mut GradScope, a: ValueId, b: ValueId) -> Result<ValueId, OpError> {
    let exponent = scope.fact(b).constant.and_then(|b| b.to_f32_vec().ok());
    if exponent.as_deref() == Some(&[2.0]) {
        return scope.scale(a, 2.0);
    }
    let b = scope.op("CastLike", &[b, a])?;
    let one = scope.number(1.0, a)?;
    let lower = scope.op("Sub", &[b, one])?;
    let power = scope.op("Pow", &[a, lower])?;
    scope.op("Mul", &[b, power])
}

/// `Max` and `Min`: dY goes to the operand that was taken, to the first of equal ones.
pub(super) fn extremum(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let (mut rest, y) = (node.gradient()?, node.output(0)?);
    let Some(last) = (0..node.op.node.inputs.len()).rev().find(|i| node.wants(*i)) else {
        return Ok(node.nothing());
    };
    let mut gradients = node.nothing();
    for (i, gradient) in gradients.iter_mut().enumerate().take(last + 1) {
        let x = node.input(i)?;
        let taken = scope.op("Equal", &[x, y])?;
        if node.wants(i) {
            let kept = scope.keep_where(taken, rest)?;
            *gradient = Some(scope.reduce_to(kept, x)?);
        }
        if i < last {
            rest = scope.drop_where(taken, rest)?;
        }
    }
    Ok(gradients)
}

/// dY / n for every one of n operands.
pub(super) fn mean(scope: &mut GradScope, node: &GradNode) -> Gradients {
    let share = scope.scale(node.gradient()?, 1.0 / node.op.node.inputs.len() as f64)?;
    node.each(|i| scope.reduce_to(share, node.input(i)?))
}
