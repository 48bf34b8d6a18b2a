//! `MatMulInteger`: a product of 8-bit matrices less their zero points, in int32.

use planish_ir::{DataType, Tensor};

use super::matmul::{Plan, integer_sums, product_dims};
use super::support::facts;
use crate::op::{optional, required};
use crate::{Fact, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("MatMulInteger", infer, eval)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (a, b) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    for (what, fact) in [("the first factor", a), ("the second factor", b)] {
        facts::of_type(what, fact, &[DataType::I8, DataType::U8])?;
    }
    let shape = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) => Some(product_dims(a, b)?),
        _ => None,
    };
    Ok(vec![Fact::new(Some(DataType::I32), shape)])
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
    let plan = Plan::new(a.shape(), b.shape())?;
    let left = centred(a, optional(inputs, 2), |i| i / plan.k.max(1) % plan.m.max(1), plan.m)?;
    let right = centred(b, optional(inputs, 3), |i| i % plan.n.max(1), plan.n)?;
    let sums = integer_sums(&plan, &left, &right).map(|sum| sum as i32).collect();
    Ok(vec![Tensor::from_vec(&plan.shape, sums)])
}

/// The elements less the zero point: one for all, or one for each of the `n` lines that `line`
/// tells apart.
fn centred(
    x: &Tensor,
    zero: Option<&Tensor>,
    line: impl Fn(usize) -> usize,
    n: usize,
) -> Result<Vec<i64>, OpError> {
    let mut values = x.to_i64_vec()?;
    let zero = zero.map_or(Ok(vec![0]), Tensor::to_i64_vec)?;
    if zero.len() != 1 && zero.len() != n {
        return Err(OpError::shape(format!("{} zero points for {n} lines", zero.len())));
    }
    let at = |i: usize| if zero.len() == 1 { 0 } else { line(i) };
    values.iter_mut().enumerate().for_each(|(i, v)| *v -= zero[at(i)]);
    Ok(values)
}
