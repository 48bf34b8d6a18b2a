//! `ScatterND` and `ScatterElements`: a copy with some elements replaced or combined.

use planish_ir::Tensor;

use super::common::facts::required;
use super::common::index::{count, wrap};
use super::common::numbers::Numbers;
use super::common::pick::pick;
use super::gather::{element_sources, tuple_start};
use crate::op::required as input;
use crate::{Fact, OpDef, OpError, OpNode};

mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("ScatterElements", infer, eval_elements).with_cuda(cuda::cuda),
    OpDef::new("ScatterND", infer, eval_nd).with_cuda(cuda::cuda),
];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let data = required(inputs, 0)?;
    Ok(vec![Fact::new(data.dtype, data.shape.clone())])
}

fn eval_elements(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let [data, indices, updates] = [input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?];
    if indices.shape() != updates.shape() {
        return Err(OpError::shape(format!(
            "indices of shape {:?} and updates of shape {:?}",
            indices.shape(),
            updates.shape()
        )));
    }
    let targets = element_sources(op, data.shape(), indices)?;
    Ok(vec![scatter(op, data, updates, &targets)?])
}

fn eval_nd(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let [data, indices, updates] = [input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?];
    let (shape, at) = (data.shape(), indices.shape());
    let misfit = || {
        let updates = updates.shape();
        OpError::shape(format!("indices {at:?} and updates {updates:?} for data {shape:?}"))
    };
    let (tuple, outer) = at.split_last().ok_or_else(misfit)?;
    let inner = shape.get(*tuple..).ok_or_else(misfit)?;
    if updates.shape() != [outer, inner].concat() {
        return Err(misfit());
    }
    let n = count(inner)?;
    let list = indices.to_i64_vec()?;
    let mut targets = Vec::with_capacity(updates.n_elements());
    for i in 0..count(outer)? {
        let start = tuple_start(shape, &list[i * tuple..(i + 1) * tuple])?;
        targets.extend(start..start + n);
    }
    Ok(vec![scatter(op, data, updates, &targets)?])
}

/// Puts the elements of `updates`, in order, at the flat indices `targets`.
fn scatter(
    op: &OpNode,
    data: &Tensor,
    updates: &Tensor,
    targets: &[usize],
) -> Result<Tensor, OpError> {
    let n = data.n_elements();
    let reduction = op.node.str("reduction", "none");
    if reduction == "none" {
        let mut choices: Vec<(usize, usize)> = (0..n).map(|i| (0, i)).collect();
        for (i, target) in targets.iter().enumerate() {
            choices[wrap(*target as i64, n)?] = (1, i);
        }
        return pick(&[data, updates], data.shape(), choices.into_iter());
    }
    let result = match (Numbers::read(data)?, Numbers::read(updates)?) {
        (Numbers::Floats(mut x), Numbers::Floats(y)) => {
            let combine = float_reduction(reduction)?;
            targets.iter().zip(y).for_each(|(i, y)| x[*i] = combine(x[*i], y));
            Numbers::Floats(x)
        }
        (Numbers::Ints(mut x), Numbers::Ints(y)) => {
            let combine = int_reduction(reduction)?;
            targets.iter().zip(y).for_each(|(i, y)| x[*i] = combine(x[*i], y));
            Numbers::Ints(x)
        }
        _ => return Err(OpError::unsupported("data and updates are of different types")),
    };
    result.write(data.dtype(), data.shape())
}

fn float_reduction(name: &str) -> Result<fn(f64, f64) -> f64, OpError> {
    Ok(match name {
        "add" => |a, b| a + b,
        "mul" => |a, b| a * b,
        "max" => f64::max,
        "min" => f64::min,
        _ => return Err(unknown(name)),
    })
}

fn int_reduction(name: &str) -> Result<fn(i128, i128) -> i128, OpError> {
    Ok(match name {
        "add" => |a, b| a.wrapping_add(b),
        "mul" => |a, b| a.wrapping_mul(b),
        "max" => i128::max,
        "min" => i128::min,
        _ => return Err(unknown(name)),
    })
}

fn unknown(name: &str) -> OpError {
    OpError::unsupported(format!("the reduction \"{name}\" is not known"))
}
