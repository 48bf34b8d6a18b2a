//! `Expand` and `Tile`: a tensor repeated.

use planish_ir::{Tensor, ValueId};

use super::common::facts::{list_length, product, required, unknown_shape, with_dims};
use super::common::fallback::Fallback;
use super::common::index::{coordinates, count, flat, strides};
use super::common::pick::take;
use super::common::strided::{View, copy};
use super::common::{axes, broadcast};
use crate::kernel::required as resident;
use crate::op::required as input;
use crate::{CpuContext, Fact, GradNode, GradScope, Kernel, OpDef, OpError, OpNode};

mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Expand", infer_expand, eval_expand)
        .with_cpu(cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad),
    OpDef::new("Tile", infer_tile, eval_tile).with_cuda(cuda::cuda),
];

fn infer_expand(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (x, target) = (required(inputs, 0)?, required(inputs, 1)?);
    let (Some(shape), Some(rank)) = (&x.shape, list_length(target)) else {
        return Ok(vec![Fact::new(x.dtype, None)]);
    };
    let Some(wanted) = &target.dims else {
        let unknown = unknown_shape(op, rank.max(shape.len()));
        return Ok(vec![Fact::new(x.dtype, Some(unknown))]);
    };
    let expanded = broadcast::dims(shape, wanted)?;
    let n = product(&expanded).as_usize().filter(|n| *n <= crate::fact::MAX_DIMS);
    let dims = match (&x.dims, n) {
        (Some(dims), Some(n)) if expanded.len() <= 1 => match dims.as_slice() {
            [dim] => Some(vec![dim.clone(); n]),
            dims => (dims.len() == n).then(|| dims.to_vec()),
        },
        _ => None,
    };
    Ok(vec![with_dims(x.dtype, Some(expanded), dims)])
}

/// The shape that the node expands a tensor of shape `shape` to.
fn expanded(shape: &[usize], target: &Tensor) -> Result<Vec<usize>, OpError> {
    broadcast::shapes(shape, &axes::sizes(&target.to_i64_vec()?)?)
}

fn eval_expand(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let shape = expanded(x.shape(), input(inputs, 1)?)?;
    let steps = broadcast::strides(x.shape(), &shape);
    Ok(vec![take(x, &shape, coordinates(&shape).map(|at| flat(&at, &steps)))?])
}

fn infer_tile(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (x, repeats) = (required(inputs, 0)?, required(inputs, 1)?);
    let shape = match (&x.shape, &repeats.dims) {
        (Some(shape), Some(repeats)) if shape.len() == repeats.len() => {
            Some(shape.iter().zip(repeats).map(|(size, n)| size.mul(n)).collect())
        }
        (Some(shape), Some(repeats)) => return Err(misfit(&shape, &repeats)),
        (Some(shape), None) => Some(unknown_shape(op, shape.len())),
        _ => None,
    };
    Ok(vec![Fact::new(x.dtype, shape)])
}

fn misfit(shape: &dyn std::fmt::Debug, repeats: &dyn std::fmt::Debug) -> OpError {
    OpError::shape(format!("the repeats {repeats:?} do not fit the shape {shape:?}"))
}

fn eval_tile(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let repeats = axes::sizes(&input(inputs, 1)?.to_i64_vec()?)?;
    if repeats.len() != x.shape().len() {
        return Err(misfit(&x.shape(), &repeats));
    }
    let steps = strides(x.shape());
    let product = |(size, n): (&usize, &usize)| size.checked_mul(*n);
    let shape: Option<Vec<usize>> = x.shape().iter().zip(&repeats).map(product).collect();
    let shape = shape.ok_or_else(|| misfit(&x.shape(), &repeats))?;
    let indices = coordinates(&shape).map(|mut at| {
        at.iter_mut().zip(x.shape()).for_each(|(i, size)| *i %= size);
        flat(&at, &steps)
    });
    Ok(vec![take(x, &shape, indices)?])
}

struct Expand(Fallback);

impl Kernel for Expand {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = resident(inputs, 0)?;
        let shape = expanded(x.shape(), resident(inputs, 1)?)?;
        if count(&shape)? == x.n_elements() {
            return Ok(vec![x.reshaped(shape)?]);
        }
        let steps = broadcast::strides(x.shape(), &shape);
        let axes = shape.iter().zip(&steps).map(|(size, step)| (*size, *step as isize)).collect();
        match copy(context, x, &View { offset: 0, axes })? {
            Some(tensor) => Ok(vec![tensor]),
            None => self.0.run(inputs),
        }
    }
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Expand(Fallback::new(op, eval_expand)))))
}

/// dX is dY summed over what was repeated.
fn grad(scope: &mut GradScope, node: &GradNode) -> Result<Vec<Option<ValueId>>, OpError> {
    node.first(|| scope.reduce_to(node.gradient()?, node.input(0)?))
}
