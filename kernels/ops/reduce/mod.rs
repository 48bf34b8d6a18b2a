//! Reductions over axes: `ReduceMean`, `ReduceSum`, `ReduceMax`, `ReduceMin`, `ReduceProd`,
//! `ReduceSumSquare`, `ReduceL1`, `ReduceL2`.

use planish_ir::{Dim, Tensor};

use super::common::axes::{IntList, axes, list, list_fact};
use super::common::facts::{product, required, unknown_shape, with_dims};
use super::common::index::{self, coordinates, flat, strides};
use super::common::numbers::Numbers;
use crate::op::required as input;
use crate::{Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod fold;
mod grad;
#[cfg(test)]
mod tests;

const fn def(name: &'static str) -> OpDef {
    OpDef::new(name, infer, eval).with_cpu(cpu::cpu).with_cuda(cuda::cuda)
}

pub(super) static OPS: &[OpDef] = &[
    def("ReduceMean").with_grad(grad::mean),
    def("ReduceSum").with_grad(grad::sum),
    def("ReduceMax").with_grad(grad::extremum),
    def("ReduceMin").with_grad(grad::extremum),
    def("ReduceProd"),
    def("ReduceSumSquare").with_grad(grad::sum_square),
    def("ReduceL1").with_grad(grad::l1),
    def("ReduceL2").with_grad(grad::l2),
];

/// For each axis whether it is reduced: those listed, or all if none are, unless the node says
/// that then nothing is to be done.
fn reduced(op: &OpNode, given: Option<Vec<i64>>, rank: usize) -> Result<Vec<bool>, OpError> {
    let given = given.unwrap_or_default();
    let all = given.is_empty() && op.node.int("noop_with_empty_axes", 0) == 0;
    let axes = axes(&given, rank)?;
    Ok((0..rank).map(|axis| all || axes.contains(&axis)).collect())
}

/// The shape that is left.
fn kept<T: Clone>(op: &OpNode, shape: &[T], reduced: &[bool], one: &T) -> Vec<T> {
    let keep = op.node.int("keepdims", 1) != 0;
    let sizes = shape.iter().zip(reduced).filter(|(_, reduced)| keep || !**reduced);
    sizes.map(|(size, reduced)| if *reduced { one } else { size }).cloned().collect()
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    let Some(shape) = &x.shape else { return Ok(vec![Fact::new(x.dtype, None)]) };
    let given = match list_fact(op, inputs, 1, "axes") {
        IntList::Known(list) => Some(list),
        IntList::Absent => None,
        IntList::Unknown => {
            let keep = op.node.int("keepdims", 1) != 0;
            let shape = keep.then(|| unknown_shape(op, shape.len()));
            return Ok(vec![Fact::new(x.dtype, shape)]);
        }
    };
    let reduced = reduced(op, given, shape.len())?;
    let one = Dim::from(1i64);
    let dims = match (&x.dims, &reduced[..]) {
        (Some(dims), [true]) => total(&op.node.op_type, dims).map(|total| vec![total]),
        _ => None,
    };
    Ok(vec![with_dims(x.dtype, Some(kept(op, shape, &reduced, &one)), dims)])
}

/// The sizes of a list reduced to one.
fn total(op_type: &str, dims: &[Dim]) -> Option<Dim> {
    let (first, rest) = dims.split_first()?;
    Some(match op_type {
        "ReduceProd" => product(dims),
        "ReduceSum" => rest.iter().fold(first.clone(), |sum, dim| sum.add(dim)),
        "ReduceMax" => rest.iter().fold(first.clone(), |max, dim| max.maximum(dim)),
        "ReduceMin" => rest.iter().fold(first.clone(), |min, dim| min.minimum(dim)),
        _ => return None,
    })
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let reduced = reduced(op, list(op, inputs, 1, "axes")?, x.shape().len())?;
    let shape = kept(op, x.shape(), &reduced, &1);
    // A step of 0 along the reduced axes leads all their elements to one accumulator.
    let full: Vec<usize> =
        x.shape().iter().zip(&reduced).map(|(size, r)| if *r { 1 } else { *size }).collect();
    let mut steps = strides(&full);
    steps.iter_mut().zip(&reduced).filter(|(_, r)| **r).for_each(|(step, _)| *step = 0);
    let n = index::count(&full)?;
    let sizes = x.shape().iter().zip(&reduced).filter(|(_, r)| **r).map(|(size, _)| *size);
    let count = sizes.fold(1, usize::saturating_mul);
    let targets = coordinates(x.shape()).map(|at| flat(&at, &steps));
    let result = match Numbers::read(x)? {
        Numbers::Floats(values) => {
            let fold = fold::floats(&op.node.op_type)?;
            Numbers::Floats(fold.run(targets.zip(values), n, count))
        }
        Numbers::Ints(values) => {
            let fold = fold::ints(&op.node.op_type, x.dtype())?;
            Numbers::Ints(fold.run(targets.zip(values), n, count))
        }
    };
    Ok(vec![result.write(x.dtype(), &shape)?])
}
