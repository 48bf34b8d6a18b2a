//! Reference evaluation: one pair of wide numbers after the other.

use std::cmp::Ordering;

use planish_ir::{DataType, Tensor};

use crate::op::required;
use crate::ops::common::broadcast;
use crate::ops::common::index::{coordinates, flat};
use crate::ops::common::numbers::Numbers;
use crate::{OpError, OpNode};

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
    Ok(vec![pair(op, &op.node.op_type, a, b)?])
}

/// `a op_type b`.
pub(super) fn pair(op: &OpNode, op_type: &str, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    if a.dtype() != b.dtype() && op_type != "Pow" {
        let (a, b) = (a.dtype(), b.dtype());
        return Err(OpError::unsupported(format!("the operands are of types {a} and {b}")));
    }
    let shape = broadcast::shapes(a.shape(), b.shape())?;
    let strides = [a, b].map(|t| broadcast::strides(t.shape(), &shape));
    let indices = coordinates(&shape).map(|at| (flat(&at, &strides[0]), flat(&at, &strides[1])));
    let (x, y) = (Numbers::read(a)?, Numbers::read(b)?);
    if let Some(holds) = comparison(op_type) {
        let truths: Vec<bool> = indices.map(|(i, j)| holds(order(&x, i, &y, j))).collect();
        return Ok(Tensor::from_bools(&shape, &truths));
    }
    let unsupported =
        || OpError::unsupported(format!("{op_type} does not take elements of type {}", a.dtype()));
    let result = match (x, y) {
        (Numbers::Ints(x), Numbers::Ints(y)) => {
            let apply = ints(op, op_type).ok_or_else(unsupported)?;
            let values = indices.map(|(i, j)| apply(x[i], y[j]).ok_or_else(division_by_zero));
            Numbers::Ints(values.collect::<Result<_, _>>()?)
        }
        (x, y) => {
            let apply = floats(op, op_type).ok_or_else(unsupported)?;
            let (x, y) = (x.into_floats(), y.into_floats());
            Numbers::Floats(indices.map(|(i, j)| apply(x[i], y[j])).collect())
        }
    };
    result.write(a.dtype(), &shape)
}

fn division_by_zero() -> OpError {
    OpError::unsupported("an integer is divided by zero")
}

fn order(x: &Numbers, i: usize, y: &Numbers, j: usize) -> Option<Ordering> {
    match (x, y) {
        (Numbers::Ints(x), Numbers::Ints(y)) => Some(x[i].cmp(&y[j])),
        (Numbers::Floats(x), Numbers::Floats(y)) => x[i].partial_cmp(&y[j]),
        _ => None,
    }
}

/// Whether the comparison holds for operands in that order; NaN is in none.
fn comparison(op_type: &str) -> Option<fn(Option<Ordering>) -> bool> {
    Some(match op_type {
        "Equal" => |o| o == Some(Ordering::Equal),
        "Greater" => |o| o == Some(Ordering::Greater),
        "GreaterOrEqual" => |o| o.is_some_and(Ordering::is_ge),
        "Less" => |o| o == Some(Ordering::Less),
        "LessOrEqual" => |o| o.is_some_and(Ordering::is_le),
        _ => return None,
    })
}

fn floats(op: &OpNode, op_type: &str) -> Option<fn(f64, f64) -> f64> {
    Some(match op_type {
        "Add" => |a, b| a + b,
        "Sub" => |a, b| a - b,
        "Mul" => |a, b| a * b,
        "Div" => |a, b| a / b,
        "Pow" => f64::powf,
        "Mod" if op.node.int("fmod", 0) != 0 => |a, b| a % b,
        "Mod" => floor_mod,
        "Max" => |a, b| if a.is_nan() || a > b { a } else { b },
        "Min" => |a, b| if a.is_nan() || a < b { a } else { b },
        _ => return None,
    })
}

/// The remainder with the sign of the divisor.
fn floor_mod(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
}

/// `None` as a result stands for a division by zero.
fn ints(op: &OpNode, op_type: &str) -> Option<fn(i128, i128) -> Option<i128>> {
    Some(match op_type {
        "Add" => |a, b| Some(a + b),
        "Sub" => |a, b| Some(a - b),
        "Mul" => |a, b| Some(a.wrapping_mul(b)),
        "Div" => |a, b| a.checked_div(b),
        "Pow" => |a, b| Some(power(a, b)),
        "Mod" if op.node.int("fmod", 0) != 0 => |a, b| a.checked_rem(b),
        "Mod" => |a, b| a.checked_rem(b).and_then(|r| (r + b).checked_rem(b)),
        "Max" => |a, b| Some(a.max(b)),
        "Min" => |a, b| Some(a.min(b)),
        "And" | "BitwiseAnd" => |a, b| Some(a & b),
        "Or" | "BitwiseOr" => |a, b| Some(a | b),
        "Xor" | "BitwiseXor" => |a, b| Some(a ^ b),
        _ => return None,
    })
}

/// Integer power, wrapping; a negative exponent rounds the fraction toward zero.
fn power(base: i128, exponent: i128) -> i128 {
    if exponent < 0 {
        return (base as f64).powf(exponent as f64) as i128;
    }
    let (mut result, mut square, mut rest) = (1i128, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        rest >>= 1;
    }
    result
}

/// The type of the result of `op_type` on operands of type `dtype`.
pub(super) fn result_dtype(op_type: &str, dtype: DataType) -> DataType {
    if comparison(op_type).is_some() { DataType::Bool } else { dtype }
}
