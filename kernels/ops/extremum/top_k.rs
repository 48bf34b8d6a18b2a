//! `TopK`.

use planish_ir::{DataType, Tensor};

use super::order::compare;
use crate::infer::unknown_dim;
use crate::op::required as input;
use crate::ops::common::axes::axis;
use crate::ops::common::facts::{optional, required};
use crate::ops::common::index::around;
use crate::ops::common::numbers::Numbers;
use crate::ops::common::pick::take;
use crate::{Fact, OpError, OpNode};

/// Values and indices, both with size k at the axis.
pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    let Some(mut shape) = x.shape.clone() else {
        return Ok(vec![Fact::new(x.dtype, None), Fact::new(Some(DataType::I64), None)]);
    };
    let axis = axis(op.node.int("axis", -1), shape.len())?;
    let k = match optional(inputs, 1) {
        Some(k) => k.dims.as_ref().and_then(|dims| dims.first().cloned()),
        None => Some(op.node.int("k", 0).into()),
    };
    shape[axis] = k.unwrap_or_else(|| unknown_dim(op.node, axis));
    Ok(vec![Fact::new(x.dtype, Some(shape.clone())), Fact::new(Some(DataType::I64), Some(shape))])
}

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = input(inputs, 0)?;
    let axis = axis(op.node.int("axis", -1), x.shape().len())?;
    let (outer, size, inner) = around(x.shape(), axis)?;
    let k = match inputs.get(1).and_then(Option::as_ref) {
        Some(k) => k.to_i64_vec()?.first().copied().unwrap_or(-1),
        None => op.node.int("k", -1),
    };
    let k = usize::try_from(k)
        .ok()
        .filter(|k| *k <= size)
        .ok_or_else(|| OpError::shape(format!("the {k} largest of {size}")))?;
    let values = Numbers::read(x)?;
    let largest = op.node.int("largest", 1) != 0;
    let mut indices = vec![0i64; outer * k * inner];
    for o in 0..outer {
        for i in 0..inner {
            let at = |along: usize| (o * size + along) * inner + i;
            let mut order: Vec<usize> = (0..size).collect();
            // The sort is stable: of equal elements the one with the smaller index comes first.
            order.sort_by(|a, b| {
                let order = compare(&values, at(*a), at(*b));
                if largest { order.reverse() } else { order }
            });
            for (rank, along) in order.into_iter().take(k).enumerate() {
                indices[(o * k + rank) * inner + i] = along as i64;
            }
        }
    }
    let mut shape = x.shape().to_vec();
    shape[axis] = k;
    let sources = indices.iter().enumerate().map(|(flat, along)| {
        let (o, i) = (flat / (k * inner), flat % inner);
        (o * size + *along as usize) * inner + i
    });
    let top = take(x, &shape, sources)?;
    Ok(vec![top, Tensor::from_vec(&shape, indices)])
}
