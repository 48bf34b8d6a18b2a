//! `Concat`: tensors joined along an axis.

use planish_ir::{Dim, Tensor};

use super::common::axes::axis;
use super::common::facts::{common_dtype, required, with_dims};
use super::common::index::{around, count};
use super::common::pick::pick;
use crate::infer::unknown_dim;
use crate::op::required as input;
use crate::{Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("Concat", infer, eval)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_grad(grad::concat)];

fn join_axis(op: &OpNode, rank: usize) -> Result<usize, OpError> {
    // Before opset 4 the attribute could be left out.
    axis(op.node.int("axis", 1), rank)
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let facts: Vec<&Fact> =
        (0..inputs.len()).map(|i| required(inputs, i)).collect::<Result<_, _>>()?;
    let dtype = common_dtype(&facts)?;
    let Some(rank) = facts.iter().find_map(|fact| fact.rank()) else {
        return Ok(vec![Fact::new(dtype, None)]);
    };
    let axis = join_axis(op, rank)?;
    let mut shape: Option<Vec<Dim>> = None;
    for fact in &facts {
        let next = fact.shape.clone().unwrap_or_else(|| {
            let sizes = shape.clone().unwrap_or_else(|| vec![unknown_dim(op.node, axis); rank]);
            with_size(sizes, axis, unknown_dim(op.node, axis))
        });
        shape = Some(match shape {
            None => next,
            Some(shape) => join(op, &shape, &next, axis)?,
        });
    }
    let lists = facts.iter().map(|fact| fact.dims.clone().filter(|_| rank == 1));
    let dims = lists.collect::<Option<Vec<_>>>().map(|lists| lists.concat());
    Ok(vec![with_dims(dtype, shape, dims)])
}

fn with_size(mut shape: Vec<Dim>, axis: usize, size: Dim) -> Vec<Dim> {
    shape[axis] = size;
    shape
}

/// The shape of `a` and `b` joined; at the other axes a number is preferred to a symbol.
fn join(op: &OpNode, a: &[Dim], b: &[Dim], axis: usize) -> Result<Vec<Dim>, OpError> {
    let mismatch = || OpError::shape(format!("the shapes {a:?} and {b:?} can't be joined"));
    if a.len() != b.len() {
        return Err(mismatch());
    }
    let unknown = unknown_dim(op.node, axis);
    let size = |i: usize| match (a[i].as_const(), b[i].as_const()) {
        _ if i == axis && (a[i] == unknown || b[i] == unknown) => Ok(unknown.clone()),
        _ if i == axis => Ok(a[i].add(&b[i])),
        (Some(x), Some(y)) if x != y => Err(mismatch()),
        (None, Some(_)) => Ok(b[i].clone()),
        _ => Ok(a[i].clone()),
    };
    (0..a.len()).map(size).collect()
}

/// The joined shape of tensors.
fn joined(op: &OpNode, shapes: &[&[usize]]) -> Result<(usize, Vec<usize>), OpError> {
    let first = shapes.first().ok_or(OpError::MissingInput(0))?;
    let axis = join_axis(op, first.len())?;
    let mut shape = first.to_vec();
    for other in &shapes[1..] {
        let agrees = other.len() == shape.len()
            && other.iter().zip(&shape).enumerate().all(|(i, (a, b))| i == axis || a == b);
        if !agrees {
            return Err(OpError::shape(format!(
                "the shapes {first:?} and {other:?} can't be joined along axis {axis}"
            )));
        }
        shape[axis] = shape[axis].saturating_add(other[axis]);
    }
    Ok((axis, shape))
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let tensors: Vec<&Tensor> =
        (0..inputs.len()).map(|i| input(inputs, i)).collect::<Result<_, _>>()?;
    let shapes: Vec<&[usize]> = tensors.iter().map(|t| t.shape()).collect();
    let (axis, shape) = joined(op, &shapes)?;
    count(&shape)?;
    let (outer, ..) = around(&shape, axis)?;
    let mut choices = Vec::new();
    for block in 0..outer {
        for (source, tensor) in tensors.iter().enumerate() {
            let (_, size, inner) = around(tensor.shape(), axis)?;
            let n = size * inner;
            choices.extend((block * n..(block + 1) * n).map(|index| (source, index)));
        }
    }
    Ok(vec![pick(&tensors, &shape, choices.into_iter())?])
}
