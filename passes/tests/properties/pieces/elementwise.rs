//! Operators that work element by element.

use planish_ir::{DataType, ValueId};

use crate::builder::Builder;

/// Operators whose results stay near what they read.
const UNARY: [&str; 12] = [
    "Neg",
    "Abs",
    "Sigmoid",
    "Tanh",
    "Relu",
    "Erf",
    "Cos",
    "Sin",
    "Softplus",
    "Identity",
    "Elu",
    "LeakyRelu",
];

pub fn unary(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let op = b.pick(&UNARY);
    Some(b.op(op, &[x]))
}

pub fn binary(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let y = b.like(x);
    let op = b.pick(&["Add", "Sub", "Mul", "Max", "Min"]);
    let result = b.op(op, &[x, y]);
    // Squares of squares would leave the range of f32.
    Some(if op == "Mul" { b.op("Tanh", &[result]) } else { result })
}

pub fn with_constant(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let op = b.pick(&["Add", "Sub", "Mul", "Max", "Min"]);
    let c = match b.below(3) {
        0 => {
            let number = b.pick(&[0.0, 1.0, -1.0, 0.5, 2.0]);
            b.number(number)
        }
        1 => {
            let n = b.channels(x)?;
            b.weight("vector", &[n], 1.0)
        }
        _ => {
            // Computed from constants alone.
            let (one, two) = (b.number(1.25), b.number(-0.5));
            b.op("Add", &[one, two])
        }
    };
    Some(if b.below(2) == 0 { b.op(op, &[x, c]) } else { b.op(op, &[c, x]) })
}

/// x / (1 + |y|).
pub fn quotient(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let (y, one) = (b.like(x), b.number(1.0));
    let absolute = b.op("Abs", &[y]);
    let divisor = b.op("Add", &[one, absolute]);
    if b.below(2) == 0 {
        return Some(b.op("Div", &[x, divisor]));
    }
    let factor = b.op("Reciprocal", &[divisor]);
    Some(b.op("Mul", &[x, factor]))
}

/// The larger of two, by comparing: continuous, so that rounding matters as little as elsewhere.
pub fn larger(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let y = b.like(x);
    let is_larger = b.op("Greater", &[x, y]);
    Some(b.op("Where", &[is_larger, x, y]))
}

pub fn clip(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let low = b.constant("low", planish_ir::Tensor::scalar(-0.75f32));
    let high = b.constant("high", planish_ir::Tensor::scalar(1.5f32));
    Some(b.op("Clip", &[x, low, high]))
}

/// x · σ(x), alone or as a gate.
pub fn swish(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let sigmoid = b.op("Sigmoid", &[x]);
    let swish =
        if b.below(2) == 0 { b.op("Mul", &[x, sigmoid]) } else { b.op("Mul", &[sigmoid, x]) };
    if b.below(2) == 0 {
        return Some(swish);
    }
    let up = b.like(x);
    let gated = b.op("Mul", &[swish, up]);
    Some(b.op("Tanh", &[gated]))
}

/// x · Φ(x) by the error function.
pub fn gelu(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let (root, one, half) = (b.number(std::f32::consts::SQRT_2), b.number(1.0), b.number(0.5));
    let scaled = b.op("Div", &[x, root]);
    let error = b.op("Erf", &[scaled]);
    let sum = b.op("Add", &[error, one]);
    if b.below(2) == 0 {
        let product = b.op("Mul", &[x, sum]);
        return Some(b.op("Mul", &[product, half]));
    }
    let halved = b.op("Mul", &[x, half]);
    Some(b.op("Mul", &[halved, sum]))
}

/// What changes nothing.
pub fn no_op(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    Some(match b.below(4) {
        0 => b.op("Identity", &[x]),
        1 => b.node("Cast", &[x], |node| node.with("to", i64::from(DataType::F32.to_onnx()))),
        2 => {
            let zero = b.number(0.0);
            b.op("Add", &[x, zero])
        }
        _ => {
            let one = b.number(1.0);
            b.op("Div", &[x, one])
        }
    })
}

/// Computes in f64 for a while.
pub fn in_f64(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let to = |dtype: DataType| i64::from(dtype.to_onnx());
    let wide = b.node("Cast", &[x], |node| node.with("to", to(DataType::F64)));
    let wide = b.op("Tanh", &[wide]);
    Some(b.node("Cast", &[wide], |node| node.with("to", to(DataType::F32))))
}
