//! `Where`: elements of one of two tensors, as a third says.

use planish_ir::{DataType, Tensor};

use super::common::broadcast;
use super::common::facts::{common_dtype, required, with_dims};
use super::common::index::{coordinates, flat};
use super::common::pick::pick;
use crate::op::required as input;
use crate::{Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("Where", infer, eval)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_grad(grad::select)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let [condition, x, y] = [required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?];
    let shape = match (&condition.shape, &x.shape, &y.shape) {
        (Some(c), Some(x), Some(y)) => Some(broadcast::dims(&broadcast::dims(c, x)?, y)?),
        _ => None,
    };
    let dims = elements(condition, x, y);
    Ok(vec![with_dims(common_dtype(&[x, y])?, shape, dims)])
}

/// The sizes that a known condition picks.
fn elements(condition: &Fact, x: &Fact, y: &Fact) -> Option<Vec<planish_ir::Dim>> {
    let (x, y) = (x.dims.as_ref()?, y.dims.as_ref()?);
    let truths = condition.constant.as_ref()?.to_i64_vec().ok()?;
    let n = truths.len().max(x.len()).max(y.len());
    (0..n)
        .map(|i| {
            let truth = truths.get(if truths.len() == 1 { 0 } else { i })?;
            let from = if *truth != 0 { x } else { y };
            from.get(if from.len() == 1 { 0 } else { i }).cloned()
        })
        .collect()
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let [condition, x, y] = [input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?];
    if condition.dtype() != DataType::Bool {
        return Err(OpError::unsupported("the condition is not a bool tensor"));
    }
    let shape = broadcast::shapes(condition.shape(), x.shape())?;
    let shape = broadcast::shapes(&shape, y.shape())?;
    let strides = [condition, x, y].map(|t| broadcast::strides(t.shape(), &shape));
    let truths = condition.bytes();
    let choices = coordinates(&shape).map(|at| {
        let source = if truths[flat(&at, &strides[0])] != 0 { 0 } else { 1 };
        (source, flat(&at, &strides[source + 1]))
    });
    Ok(vec![pick(&[x, y], &shape, choices)?])
}
