//! planish's `QuantizedMatMul`: codes times integer weights, summed in int32, times the scales of
//! the weight's column and of the row: Y = (codes · W) · w_scale · a_scale.

use planish_ir::{DataType, Function, Tensor};

use super::matmul::{Plan, integer_sums, product_dims};
use super::support::body::Body;
use super::support::{Dense, dense, facts};
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

pub(in crate::ops) mod cpu;
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("QuantizedMatMul", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_function(function)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let scale = facts::required(inputs, 3)?;
    facts::same_size("the weight's scale", facts::required(inputs, 2)?.dim(-1), scale.dim(0))?;
    product_facts(inputs)
}

/// The f32 product of codes (0) and weight (2), whose types are checked.
pub(in crate::ops) fn product_facts(inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (codes, w) = (facts::required(inputs, 0)?, facts::required(inputs, 2)?);
    facts::required(inputs, 1)?;
    facts::of_type("codes", codes, &[DataType::I8])?;
    facts::of_type("a weight", w, &[DataType::I4, DataType::I8])?;
    let shape = match (&codes.shape, &w.shape) {
        (Some(a), Some(b)) => Some(product_dims(a, b)?),
        _ => None,
    };
    Ok(vec![Fact::new(Some(DataType::F32), shape)])
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (codes, w) = (required(inputs, 0)?, required(inputs, 2)?);
    let (a_scale, w_scale) =
        (Dense::read(required(inputs, 1)?)?, Dense::read(required(inputs, 3)?)?);
    let plan = Plan::new(codes.shape(), w.shape())?;
    let n = plan.n;
    let n_rows = plan.shape.iter().product::<usize>() / n.max(1);
    if w.shape().len() != 2 || w_scale.shape != [n] || a_scale.data.len() != n_rows {
        return Err(OpError::shape("codes, scales and weight do not go together"));
    }
    let (left, right) = (codes.to_i64_vec()?, w.to_i64_vec()?);
    let sums = integer_sums(&plan, &left, &right).enumerate();
    let data =
        sums.map(|(i, sum)| sum as f32 * w_scale.data[i % n] * a_scale.data[i / n]).collect();
    Ok(vec![dense::of_f32(DataType::F32, &plan.shape, data)?])
}

fn function() -> Function {
    let (mut body, x) = Body::new("QuantizedMatMul", &["codes", "a_scale", "W", "w_scale"]);
    let w = body.cast("W8", x[2], DataType::I8);
    let sums = body.op("sums", "MatMulInteger", &[x[0], w]);
    let sums = body.cast("sums_f", sums, DataType::F32);
    let by_column = body.op("by_column", "Mul", &[sums, x[3]]);
    let y = body.op("scaled", "Mul", &[by_column, x[1]]);
    body.finish(&[(y, "Y")])
}
