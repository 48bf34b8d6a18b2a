//! `Gather`: whole slices along one axis.

use planish_ir::{Dim, Tensor};

use crate::op::required as input;
use crate::ops::common::axes::axis;
use crate::ops::common::facts::{required, with_dims};
use crate::ops::common::index::{around, wrap};
use crate::ops::common::pick::take;
use crate::{Fact, OpError, OpNode};

/// data [..., n at `axis`, ...], indices [...] → the axis replaced by the shape of the indices.
pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (data, indices) = (required(inputs, 0)?, required(inputs, 1)?);
    let (Some(shape), Some(at)) = (&data.shape, &indices.shape) else {
        return Ok(vec![Fact::new(data.dtype, None)]);
    };
    let axis = axis(op.node.int("axis", 0), shape.len())?;
    let gathered = [&shape[..axis], at, &shape[axis + 1..]].concat();
    Ok(vec![with_dims(data.dtype, Some(gathered), elements(data, indices)?)])
}

/// The sizes picked out of a list of sizes by known indices.
fn elements(data: &Fact, indices: &Fact) -> Result<Option<Vec<Dim>>, OpError> {
    let (Some(dims), Some(list)) = (&data.dims, indices.ints()) else { return Ok(None) };
    if data.rank() != Some(1) || indices.rank().is_none_or(|rank| rank > 1) {
        return Ok(None);
    }
    let pick = |index: &i64| Ok(dims[wrap(*index, dims.len())?].clone());
    list.iter().map(pick).collect::<Result<_, _>>().map(Some)
}

/// The result's shape.
pub(super) fn gathered(data: &[usize], indices: &[usize], axis: usize) -> Vec<usize> {
    [&data[..axis], indices, &data[axis + 1..]].concat()
}

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (data, indices) = (input(inputs, 0)?, input(inputs, 1)?);
    let axis = axis(op.node.int("axis", 0), data.shape().len())?;
    let (outer, size, inner) = around(data.shape(), axis)?;
    let list = indices.to_i64_vec()?;
    let list: Vec<usize> = list.iter().map(|i| wrap(*i, size)).collect::<Result<_, _>>()?;
    let rows = (0..outer).flat_map(|o| list.iter().map(move |i| (o * size + i) * inner));
    let shape = gathered(data.shape(), indices.shape(), axis);
    Ok(vec![take(data, &shape, rows.flat_map(|row| row..row + inner))?])
}
