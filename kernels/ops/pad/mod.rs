//! `Pad`: elements put around a tensor, or taken off.

use planish_ir::{Dim, Node, Tensor, ValueId};

use super::common::axes::{IntList, axes, list, list_fact};
use super::common::facts::{required, unknown_shape};
use super::common::index::{coordinates, count, flat, strides};
use super::common::numbers::Numbers;
use super::common::pick::pick;
use crate::op::{optional, required as input};
use crate::{Fact, GradNode, GradScope, OpDef, OpError, OpNode};

mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("Pad", infer, eval).with_cuda(cuda::cuda).with_grad(grad)];

/// Elements to put before and after each axis.
fn per_axis(pads: &[i64], at: Option<Vec<i64>>, rank: usize) -> Result<Vec<(i64, i64)>, OpError> {
    let at = axes(&at.unwrap_or_else(|| (0..rank as i64).collect()), rank)?;
    if pads.len() != 2 * at.len() {
        return Err(OpError::shape(format!("{} pads for {} axes", pads.len(), at.len())));
    }
    let mut sides = vec![(0, 0); rank];
    for (i, axis) in at.iter().enumerate() {
        sides[*axis] = (pads[i], pads[i + at.len()]);
    }
    Ok(sides)
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    let Some(shape) = &x.shape else { return Ok(vec![Fact::new(x.dtype, None)]) };
    let at = match list_fact(op, inputs, 3, "") {
        IntList::Known(list) => Some(list),
        IntList::Absent => None,
        IntList::Unknown => {
            return Ok(vec![Fact::new(x.dtype, Some(unknown_shape(op, shape.len())))]);
        }
    };
    let padded = match list_fact(op, inputs, 1, "pads") {
        IntList::Known(pads) => {
            let sides = per_axis(&pads, at, shape.len())?;
            let grow = |(dim, (a, b)): (&Dim, (i64, i64))| dim.add(&Dim::from(a.wrapping_add(b)));
            shape.iter().zip(sides).map(grow).collect()
        }
        _ => unknown_shape(op, shape.len()),
    };
    Ok(vec![Fact::new(x.dtype, Some(padded))])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let pads = list(op, inputs, 1, "pads")?.ok_or(OpError::MissingInput(1))?;
    let at = optional(inputs, 3).map(Tensor::to_i64_vec).transpose()?;
    let sides = per_axis(&pads, at, x.shape().len())?;
    let shape = padded(x.shape(), &sides)?;
    count(&shape)?;
    let fill = fill(op, inputs, x)?;
    let mode = op.node.str("mode", "constant");
    if !matches!(mode, "constant" | "edge" | "reflect" | "wrap") {
        return Err(OpError::unsupported(format!("the mode \"{mode}\" is not known")));
    }
    let steps = strides(x.shape());
    let choices = coordinates(&shape).map(|at| {
        let from = at.iter().zip(&sides).zip(x.shape());
        let source: Option<Vec<usize>> = from
            .map(|((i, (before, _)), size)| {
                inside(mode, (*i as i64).saturating_sub(*before), *size)
            })
            .collect();
        source.map_or((1, 0), |at| (0, flat(&at, &steps)))
    });
    Ok(vec![pick(&[x, &fill], &shape, choices)?])
}

/// The shape of a padded tensor.
fn padded(shape: &[usize], sides: &[(i64, i64)]) -> Result<Vec<usize>, OpError> {
    let size = |(size, (a, b)): (&usize, &(i64, i64))| {
        let padded = (*size as i64).checked_add(*a)?.checked_add(*b)?;
        usize::try_from(padded).ok()
    };
    let shape: Option<Vec<usize>> = shape.iter().zip(sides).map(size).collect();
    shape.ok_or_else(|| OpError::shape("the pads leave a negative size"))
}

/// The element that fills up, of the type of `x`.
fn fill(op: &OpNode, inputs: &[Option<Tensor>], x: &Tensor) -> Result<Tensor, OpError> {
    match optional(inputs, 2) {
        Some(value) if value.n_elements() == 1 => Ok(value.clone()),
        Some(_) => Err(OpError::shape("the fill value is not a single element")),
        None => {
            let value = f64::from(op.node.float("value", 0.0));
            Numbers::Floats(vec![value]).write(x.dtype(), &[])
        }
    }
}

/// The index on an axis of `size` elements that position `i` shows; `None` for the fill value.
fn inside(mode: &str, i: i64, size: usize) -> Option<usize> {
    let n = size as i64;
    let index = match mode {
        _ if n == 0 => return None,
        "edge" => i.clamp(0, n - 1),
        "wrap" => i.rem_euclid(n),
        "reflect" if n > 1 => {
            let phase = i.rem_euclid(2 * (n - 1));
            phase.min(2 * (n - 1) - phase)
        }
        "reflect" => 0,
        _ => i,
    };
    usize::try_from(index).ok().filter(|index| *index < size)
}

/// Of constant padding: what was put around is taken off dY again, and what was taken off is
/// filled up with zeros.
fn grad(scope: &mut GradScope, node: &GradNode) -> Result<Vec<Option<ValueId>>, OpError> {
    if node.op.node.str("mode", "constant") != "constant" {
        return Err(OpError::unsupported("only padding with a constant has a gradient rule"));
    }
    let (dy, pads) = (node.gradient()?, node.input(1)?);
    node.first(|| {
        let back = scope.op("Neg", &[pads])?;
        let inputs = [Some(dy), Some(back), None, node.op.node.input(3)];
        let n = if inputs[3].is_some() { 4 } else { 2 };
        scope.node("grad_padded", Node::new("Pad", inputs[..n].to_vec()))
    })
}
