//! `Transpose`: axes in another order.

use planish_ir::{Tensor, ValueId};

use super::common::axes::axes;
use super::common::facts::required;
use super::common::fallback::Fallback;
use super::common::index::{coordinates, flat, strides};
use super::common::pick::take;
use super::common::strided::{View, copy};
use crate::kernel::required as resident;
use crate::op::required as input;
use crate::{CpuContext, Fact, GradNode, GradScope, Kernel, OpDef, OpError, OpNode};

mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("Transpose", infer, eval).with_cpu(cpu).with_cuda(cuda::cuda).with_grad(grad)];

/// The input's axis at each place of the output; reversed if not given.
fn permutation(op: &OpNode, rank: usize) -> Result<Vec<usize>, OpError> {
    let Some(list) = op.node.ints("perm") else { return Ok((0..rank).rev().collect()) };
    if list.len() != rank {
        return Err(OpError::shape(format!("the permutation {list:?} is not of rank {rank}")));
    }
    axes(list, rank)
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    let Some(shape) = &x.shape else {
        let rank = op.node.ints("perm").map(<[i64]>::len);
        let shape = rank.map(|rank| super::common::facts::unknown_shape(op, rank));
        return Ok(vec![Fact::new(x.dtype, shape)]);
    };
    let permutation = permutation(op, shape.len())?;
    let permuted = permutation.iter().map(|axis| shape[*axis].clone()).collect();
    Ok(vec![Fact::new(x.dtype, Some(permuted))])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let permutation = permutation(op, x.shape().len())?;
    let steps = strides(x.shape());
    let shape: Vec<usize> = permutation.iter().map(|axis| x.shape()[*axis]).collect();
    let steps: Vec<usize> = permutation.iter().map(|axis| steps[*axis]).collect();
    Ok(vec![take(x, &shape, coordinates(&shape).map(|at| flat(&at, &steps)))?])
}

struct Transpose(Fallback);

impl Kernel for Transpose {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = resident(inputs, 0)?;
        let permutation = permutation(&self.0.op(), x.shape().len())?;
        let steps = strides(x.shape());
        let shape: Vec<usize> = permutation.iter().map(|axis| x.shape()[*axis]).collect();
        if keeps_order(&permutation, x.shape()) {
            return Ok(vec![x.reshaped(shape)?]);
        }
        let axes = permutation.iter().map(|axis| (x.shape()[*axis], steps[*axis] as isize));
        let view = View { offset: 0, axes: axes.collect() };
        match copy(context, x, &view)? {
            Some(tensor) => Ok(vec![tensor]),
            None => self.0.run(inputs),
        }
    }
}

/// Whether only axes of size 1 change their place.
fn keeps_order(permutation: &[usize], shape: &[usize]) -> bool {
    permutation.iter().filter(|axis| shape[**axis] != 1).is_sorted()
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Transpose(Fallback::new(op, eval)))))
}

/// dX is dY with the axes put back.
fn grad(scope: &mut GradScope, node: &GradNode) -> Result<Vec<Option<ValueId>>, OpError> {
    let (dy, x) = (node.gradient()?, node.input(0)?);
    let permutation = permutation(&node.op, scope.rank(x)?)?;
    let mut back = vec![0; permutation.len()];
    (0..).zip(&permutation).for_each(|(to, from)| back[*from] = to);
    node.first(|| scope.transpose(dy, &back))
}
