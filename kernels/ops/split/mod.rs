//! `Split`: a tensor cut along an axis.

use planish_ir::{Dim, Tensor};

use super::common::axes::{IntList, axis, list, list_fact};
use super::common::facts::{required, with_dims};
use super::common::fallback::Fallback;
use super::common::index::{around, strides};
use super::common::pick::take;
use super::common::strided::{View, copy};
use crate::kernel::required as resident;
use crate::op::required as input;
use crate::{CpuContext, Fact, Kernel, OpDef, OpError, OpNode};

mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("Split", infer, eval).with_cpu(cpu).with_cuda(cuda::cuda).with_grad(grad::split)];

/// Number of parts when no sizes are given.
fn n_parts(op: &OpNode) -> Result<i64, OpError> {
    let n = op.node.int("num_outputs", op.n_outputs() as i64);
    if n == op.n_outputs() as i64 {
        Ok(n)
    } else {
        Err(OpError::unsupported(format!("{n} parts for {} outputs", op.n_outputs())))
    }
}

/// Sizes of the parts of an axis of size `size`: those given, or equal ones, of which the last
/// is smaller where they do not come out even.
fn sizes(op: &OpNode, given: Option<Vec<i64>>, size: usize) -> Result<Vec<usize>, OpError> {
    let sizes = match given {
        Some(list) => super::common::axes::sizes(&list)?,
        None => {
            let n = n_parts(op)? as usize;
            let part = size.div_ceil(n);
            (0..n).map(|i| part.min(size.saturating_sub(i * part))).collect()
        }
    };
    let sum = sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size));
    if sum == Some(size) {
        Ok(sizes)
    } else {
        Err(OpError::shape(format!("the parts {sizes:?} are not those of an axis of size {size}")))
    }
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    let n = op.n_outputs();
    let Some(shape) = &x.shape else { return Ok(vec![Fact::new(x.dtype, None); n]) };
    let axis = axis(op.node.int("axis", 0), shape.len())?;
    let parts = part_dims(op, &list_fact(op, inputs, 1, "split"), &shape[axis])?;
    let mut start = 0usize;
    let mut facts = Vec::with_capacity(n);
    for i in 0..n {
        let mut part = shape.clone();
        part[axis] = match &parts {
            Some(parts) => parts.get(i).cloned().ok_or_else(|| too_few(parts.len(), n))?,
            None => Dim::symbol(&format!("{}_{i}", crate::infer::unknown_dim(op.node, axis))),
        };
        let length = part[axis].as_usize();
        let of_part =
            |(dims, n): (&Vec<Dim>, usize)| Some(dims.get(start..start.checked_add(n)?)?.to_vec());
        let dims = x.dims.as_ref().zip(length).and_then(of_part);
        facts.push(with_dims(x.dtype, Some(part), dims));
        start = start.saturating_add(length.unwrap_or(0));
    }
    Ok(facts)
}

fn too_few(parts: usize, outputs: usize) -> OpError {
    OpError::shape(format!("{parts} parts for {outputs} outputs"))
}

/// The parts' sizes, if they are known.
fn part_dims(op: &OpNode, given: &IntList, size: &Dim) -> Result<Option<Vec<Dim>>, OpError> {
    let given = match given {
        IntList::Unknown => return Ok(None),
        IntList::Absent => None,
        IntList::Known(list) => Some(list.clone()),
    };
    if let Some(size) = size.as_usize() {
        let sizes = sizes(op, given, size)?;
        return Ok(Some(sizes.into_iter().map(Dim::from).collect()));
    }
    if let Some(list) = given {
        return Ok(Some(list.into_iter().map(Dim::from).collect()));
    }
    let n = n_parts(op)?;
    Ok(size.div_exact(&Dim::from(n)).map(|part| vec![part; n as usize]))
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let axis = axis(op.node.int("axis", 0), x.shape().len())?;
    let (outer, size, inner) = around(x.shape(), axis)?;
    let mut start = 0;
    let mut parts = Vec::new();
    for n in sizes(op, list(op, inputs, 1, "split")?, size)? {
        let mut shape = x.shape().to_vec();
        shape[axis] = n;
        let rows = (0..outer).map(|o| (o * size + start) * inner);
        let indices = rows.flat_map(|row| row..row + n * inner);
        parts.push(take(x, &shape, indices)?);
        start += n;
    }
    Ok(parts)
}

struct Split(Fallback);

impl Kernel for Split {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = resident(inputs, 0)?;
        let op = self.0.op();
        let axis = axis(op.node.int("axis", 0), x.shape().len())?;
        let given: Vec<Option<Tensor>> = vec![None, inputs.get(1).copied().flatten().cloned()];
        let steps = strides(x.shape());
        let mut start = 0;
        let mut parts = Vec::new();
        for n in sizes(&op, list(&op, &given, 1, "split")?, x.shape()[axis])? {
            let mut axes: Vec<(usize, isize)> =
                x.shape().iter().zip(&steps).map(|(n, s)| (*n, *s as isize)).collect();
            axes[axis].0 = n;
            let view = View { offset: start * steps[axis], axes };
            let Some(part) = copy(context, x, &view)? else { return self.0.run(inputs) };
            parts.push(part);
            start += n;
        }
        Ok(parts)
    }
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Split(Fallback::new(op, eval)))))
}
