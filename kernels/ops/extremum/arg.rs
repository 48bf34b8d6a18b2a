//! `ArgMax` and `ArgMin`.

use std::cmp::Ordering;

use planish_ir::{DataType, Dim, Tensor};

use super::order::compare;
use crate::op::required as input;
use crate::ops::common::axes::axis;
use crate::ops::common::facts::required;
use crate::ops::common::index::around;
use crate::ops::common::numbers::Numbers;
use crate::{Fact, OpError, OpNode};

/// The shape without the axis, or with size 1 there.
pub(super) fn kept<T>(op: &OpNode, mut shape: Vec<T>, axis: usize, one: T) -> Vec<T> {
    if op.node.int("keepdims", 1) != 0 {
        shape[axis] = one;
    } else {
        shape.remove(axis);
    }
    shape
}

pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let shape = match required(inputs, 0)?.shape.clone() {
        Some(shape) => {
            let axis = axis(op.node.int("axis", 0), shape.len())?;
            Some(kept(op, shape, axis, Dim::from(1i64)))
        }
        None => None,
    };
    Ok(vec![Fact::new(Some(DataType::I64), shape)])
}

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let axis = axis(op.node.int("axis", 0), x.shape().len())?;
    let (outer, size, inner) = around(x.shape(), axis)?;
    if size == 0 {
        return Err(OpError::shape(format!("axis {axis} of shape {:?} is empty", x.shape())));
    }
    let values = Numbers::read(x)?;
    let wanted = if op.node.op_type == "ArgMax" { Ordering::Greater } else { Ordering::Less };
    let takes_last = op.node.int("select_last_index", 0) != 0;
    let mut result = Vec::with_capacity(outer * inner);
    for o in 0..outer {
        for i in 0..inner {
            let at = |along: usize| (o * size + along) * inner + i;
            let best = (1..size).fold(0, |best, along| {
                let order = compare(&values, at(along), at(best));
                let better = order == wanted || (takes_last && order == Ordering::Equal);
                if better { along } else { best }
            });
            result.push(best as i64);
        }
    }
    let shape = kept(op, x.shape().to_vec(), axis, 1);
    Ok(vec![Tensor::from_vec(&shape, result)])
}
