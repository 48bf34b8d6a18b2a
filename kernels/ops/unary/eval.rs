//! Reference evaluation on wide numbers.

use planish_ir::{DataType, Tensor};

use super::erf::erf;
use super::is_test;
use crate::op::required;
use crate::ops::common::numbers::Numbers;
use crate::{OpError, OpNode};

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let op_type = op.node.op_type.as_str();
    let unsupported =
        || OpError::unsupported(format!("{op_type} does not take elements of type {}", x.dtype()));
    let result = match Numbers::read(x)? {
        Numbers::Floats(values) => {
            let apply = floats(op).ok_or_else(unsupported)?;
            Numbers::Floats(values.into_iter().map(apply).collect())
        }
        Numbers::Ints(values) => {
            let apply = ints(op_type).ok_or_else(unsupported)?;
            Numbers::Ints(values.into_iter().map(apply).collect())
        }
    };
    let dtype = if is_test(op_type) { DataType::Bool } else { x.dtype() };
    Ok(vec![result.write(dtype, x.shape())?])
}

fn floats(op: &OpNode) -> Option<Box<dyn Fn(f64) -> f64>> {
    let simple: fn(f64) -> f64 = match op.node.op_type.as_str() {
        "Neg" => |x| -x,
        "Abs" => f64::abs,
        "Sqrt" => f64::sqrt,
        "Reciprocal" => f64::recip,
        "Exp" => f64::exp,
        "Log" => f64::ln,
        "Erf" => erf,
        "Tanh" => f64::tanh,
        "Sigmoid" => |x| 1.0 / (1.0 + (-x).exp()),
        "Relu" => |x| if x.is_nan() { x } else { x.max(0.0) },
        "Softplus" => |x| x.max(0.0) + (-x.abs()).exp().ln_1p(),
        "Round" => f64::round_ties_even,
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Sign" => |x| if x == 0.0 || x.is_nan() { x } else { x.signum() },
        "Cos" => f64::cos,
        "Sin" => f64::sin,
        "IsNaN" => |x| f64::from(x.is_nan()),
        _ => return parameterised(op),
    };
    Some(Box::new(simple))
}

fn parameterised(op: &OpNode) -> Option<Box<dyn Fn(f64) -> f64>> {
    Some(match op.node.op_type.as_str() {
        "LeakyRelu" => {
            let alpha = f64::from(op.node.float("alpha", 0.01));
            Box::new(move |x| if x < 0.0 { alpha * x } else { x })
        }
        "Elu" => {
            let alpha = f64::from(op.node.float("alpha", 1.0));
            Box::new(move |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
        }
        "IsInf" => {
            let positive = op.node.int("detect_positive", 1) != 0;
            let negative = op.node.int("detect_negative", 1) != 0;
            let is = move |x: f64| x.is_infinite() && if x > 0.0 { positive } else { negative };
            Box::new(move |x| f64::from(is(x)))
        }
        _ => return None,
    })
}

fn ints(op_type: &str) -> Option<fn(i128) -> i128> {
    Some(match op_type {
        "Neg" => |x| -x,
        "Abs" => i128::abs,
        "Sign" => i128::signum,
        "Relu" => |x| x.max(0),
        "Not" => |x| i128::from(x == 0),
        "BitwiseNot" => |x| !x,
        _ => return None,
    })
}
