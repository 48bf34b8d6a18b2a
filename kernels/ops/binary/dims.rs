//! Arithmetic and comparison on sizes that inference follows.

use planish_ir::{Dim, Tensor};

use crate::Fact;
use crate::ops::common::facts::surely_less;

/// The elements of `a op b`, if both are followed and the result is a polynomial or at least has
/// a name.
pub(super) fn arithmetic(op_type: &str, a: &Fact, b: &Fact) -> Option<Vec<Dim>> {
    let apply = operation(op_type)?;
    let (a, b) = (a.dims.as_ref()?, b.dims.as_ref()?);
    pairs(a, b)?.into_iter().map(|(a, b)| apply(a, b)).collect()
}

/// The truth values of a comparison, if all follow from sizes not being negative.
pub(super) fn compare(op_type: &str, a: &Fact, b: &Fact, shape: Option<&[Dim]>) -> Option<Tensor> {
    let (a, b) = (a.dims.as_ref()?, b.dims.as_ref()?);
    let truths = pairs(a, b)?.into_iter().map(|(a, b)| decide(op_type, a, b));
    let truths: Vec<bool> = truths.collect::<Option<_>>()?;
    let shape: Vec<usize> = shape?.iter().map(Dim::as_usize).collect::<Option<_>>()?;
    (shape.iter().product::<usize>() == truths.len()).then(|| Tensor::from_bools(&shape, &truths))
}

/// Elements that meet when two lists, either of which may be of length 1, are broadcast.
fn pairs<'a>(a: &'a [Dim], b: &'a [Dim]) -> Option<Vec<(&'a Dim, &'a Dim)>> {
    match (a, b) {
        ([a], _) => Some(b.iter().map(|b| (a, b)).collect()),
        (_, [b]) => Some(a.iter().map(|a| (a, b)).collect()),
        _ => (a.len() == b.len()).then(|| a.iter().zip(b).collect()),
    }
}

fn operation(op_type: &str) -> Option<fn(&Dim, &Dim) -> Option<Dim>> {
    Some(match op_type {
        "Add" | "Sum" => |a, b| Some(a.add(b)),
        "Sub" => |a, b| Some(a.sub(b)),
        "Mul" => |a, b| Some(a.mul(b)),
        "Max" => |a, b| Some(a.maximum(b)),
        "Min" => |a, b| Some(a.minimum(b)),
        "Div" => |a, b| divisible(a, b).then(|| a.floor_div(b)),
        "Mod" => |a, b| divisible(a, b).then(|| a.modulo(b)),
        _ => return None,
    })
}

/// Rounding down is what ONNX's division does only where nothing is negative.
fn divisible(a: &Dim, b: &Dim) -> bool {
    a.is_surely_non_negative() && b.is_surely_non_negative() && b.as_const() != Some(0)
}

fn decide(op_type: &str, a: &Dim, b: &Dim) -> Option<bool> {
    let less = |a: &Dim, b: &Dim| {
        if surely_less(a, b) {
            Some(true)
        } else {
            a.sub(b).is_surely_non_negative().then_some(false)
        }
    };
    match op_type {
        "Equal" if a == b => Some(true),
        "Equal" => (surely_less(a, b) || surely_less(b, a)).then_some(false),
        "Less" => less(a, b),
        "Greater" => less(b, a),
        "LessOrEqual" => less(b, a).map(|greater| !greater),
        "GreaterOrEqual" => less(a, b).map(|less| !less),
        _ => None,
    }
}
