//! `Slice`: a part of a tensor at regular steps.

use planish_ir::{DataType, Tensor};

use super::common::axes::{axes, list};
use super::common::fallback::Fallback;
use super::common::index::{coordinates, strides};
use super::common::pick::take;
use super::common::strided::{View, copy};
use crate::kernel::required as resident;
use crate::op::required as input;
use crate::{CpuContext, Kernel, OpDef, OpError, OpNode};

mod cuda;
mod grad;
mod infer;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("Slice", infer::infer, eval)
    .with_cpu(cpu)
    .with_cuda(cuda::cuda)
    .with_grad(grad::slice)];

/// First index, number of elements and step along one axis of size `size`; the bounds clamped as
/// ONNX says.
fn bounds(start: i64, end: i64, step: i64, size: usize) -> Result<(usize, usize, i64), OpError> {
    if step == 0 {
        return Err(OpError::unsupported("the step is 0"));
    }
    if size == 0 {
        return Ok((0, 0, step));
    }
    let size = size as i64;
    let wrap = |index: i64| if index < 0 { index.saturating_add(size) } else { index };
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    // The start of a backward slice is clamped to the first element, not to before it.
    let start = wrap(start).clamp(0, high);
    let end = wrap(end).clamp(low, high);
    let span = if step > 0 { end - start } else { start - end };
    let length = span.max(0).cast_unsigned().div_ceil(step.unsigned_abs());
    Ok((start as usize, length as usize, step))
}

/// The elements that the node sees of a tensor of shape `shape`.
fn view(op: &OpNode, inputs: &[Option<Tensor>], shape: &[usize]) -> Result<View, OpError> {
    let starts = list(op, inputs, 1, "starts")?.ok_or(OpError::MissingInput(1))?;
    let ends = list(op, inputs, 2, "ends")?.ok_or(OpError::MissingInput(2))?;
    let all = || (0..starts.len() as i64).collect();
    let axes = axes(&list(op, inputs, 3, "axes")?.unwrap_or_else(all), shape.len())?;
    let steps = list(op, inputs, 4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(OpError::shape("starts, ends, axes and steps are of different lengths"));
    }
    let strides = strides(shape);
    let dense = shape.iter().zip(&strides).map(|(size, step)| (*size, *step as isize));
    let mut view = View { offset: 0, axes: dense.collect() };
    for (i, axis) in axes.into_iter().enumerate() {
        let (start, length, step) = bounds(starts[i], ends[i], steps[i], shape[axis])?;
        view.offset += start * strides[axis];
        // A step beyond the axis is never taken twice, so its exact length does not matter.
        let step = step.clamp(-(shape[axis] as i64), shape[axis] as i64);
        view.axes[axis] = (length, step as isize * strides[axis] as isize);
    }
    Ok(view)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let view = view(op, inputs, x.shape())?;
    let index = |at: Vec<usize>| {
        let steps = at.iter().zip(&view.axes).map(|(i, (_, step))| *i as isize * step);
        (view.offset as isize + steps.sum::<isize>()) as usize
    };
    let shape = view.shape();
    Ok(vec![take(x, &shape, coordinates(&shape).map(index))?])
}

struct Slice(Fallback);

impl Kernel for Slice {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = resident(inputs, 0)?;
        // Only the small integer inputs are read from the owned copies.
        let owned: Vec<Option<Tensor>> = inputs.iter().map(|t| t.cloned()).collect();
        let view = view(&self.0.op(), &owned, x.shape())?;
        if view.shape() == x.shape() && x.dtype() != DataType::String && is_whole(&view, x) {
            return Ok(vec![x.clone()]);
        }
        match copy(context, x, &view)? {
            Some(tensor) => Ok(vec![tensor]),
            None => self.0.run(inputs),
        }
    }
}

/// Whether the view sees all elements in their order.
fn is_whole(view: &View, x: &Tensor) -> bool {
    let dense = strides(x.shape());
    view.offset == 0 && view.axes.iter().zip(dense).all(|((_, step), d)| *step == d as isize)
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Slice(Fallback::new(op, eval)))))
}
