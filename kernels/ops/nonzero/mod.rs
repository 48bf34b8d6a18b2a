//! `NonZero`: the coordinates of the elements that are not 0.

use planish_ir::{DataType, Dim, Tensor};

use super::common::facts::required;
use super::common::index::coordinates;
use super::common::numbers::Numbers;
use crate::infer::unknown_dim;
use crate::op::required as input;
use crate::{Fact, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

/// Constants up to this size are counted during inference.
const MAX_COUNTED: usize = 4096;

pub(super) static OPS: &[OpDef] = &[OpDef::new("NonZero", infer, eval)];

/// The result is [rank, number of elements that are not 0].
fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    if let Some(constant) = x.constant.as_ref().filter(|t| t.n_elements() <= MAX_COUNTED) {
        return Ok(vec![Fact::of_constant(&coordinates_of(constant)?)]);
    }
    let rank = x.rank().map_or_else(|| unknown_dim(op.node, 0), Dim::from);
    Ok(vec![Fact::new(Some(DataType::I64), Some(vec![rank, unknown_dim(op.node, 1)]))])
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![coordinates_of(input(inputs, 0)?)?])
}

fn coordinates_of(x: &Tensor) -> Result<Tensor, OpError> {
    let holds: Vec<bool> = match Numbers::read(x)? {
        Numbers::Floats(values) => values.iter().map(|x| *x != 0.0).collect(),
        Numbers::Ints(values) => values.iter().map(|x| *x != 0).collect(),
    };
    let found: Vec<Vec<usize>> =
        coordinates(x.shape()).zip(&holds).filter(|(_, holds)| **holds).map(|(at, _)| at).collect();
    let rank = x.shape().len();
    let row = |axis: usize| found.iter().map(move |at| at[axis] as i64);
    Ok(Tensor::from_vec(&[rank, found.len()], (0..rank).flat_map(row).collect()))
}
