//! Which keys a query of `Attention` sees.

use planish_ir::{DataType, Tensor};

use crate::op::optional;
use crate::ops::common::broadcast;
use crate::ops::support::Dense;
use crate::{OpError, OpNode};

/// The mask input, causality, window and lengths of one node, taken together.
pub(super) struct Mask {
    /// Elements (−∞ and 0 for a bool mask), steps along `[b, h, q, k]`, number of columns.
    given: Option<(Vec<f32>, Vec<usize>, usize)>,
    /// Keys of each sequence that count.
    lengths: Option<Vec<i64>>,
    /// Position of the first query among the keys, for each sequence.
    first: Vec<i64>,
    is_causal: bool,
    left: i64,
    right: i64,
}

impl Mask {
    /// Reads attributes and inputs 3 (mask) and 6 (lengths) for scores of shape `[b, h, q, k]`.
    pub fn new(
        op: &OpNode,
        inputs: &[Option<Tensor>],
        shape: [usize; 4],
        n_past: usize,
    ) -> Result<Self, OpError> {
        let [batch, _, n_queries, _] = shape;
        let given = optional(inputs, 3).map(|mask| read(mask, shape)).transpose()?;
        let lengths = optional(inputs, 6).map(Tensor::to_i64_vec).transpose()?;
        let first = match &lengths {
            Some(lengths) if lengths.len() != batch => {
                return Err(OpError::shape("nonpad_kv_seqlen must have one length a sequence"));
            }
            Some(lengths) => lengths.iter().map(|n| n - n_queries as i64).collect(),
            None => vec![n_past as i64; batch],
        };
        Ok(Self {
            given,
            lengths,
            first,
            is_causal: op.node.int("is_causal", 0) != 0,
            left: op.node.int("left_window_size", -1),
            right: op.node.int("right_window_size", -1),
        })
    }

    /// What is added to the score of key `k` for query `q`.
    pub fn bias(&self, b: usize, h: usize, q: usize, k: usize) -> f32 {
        let distance = self.first[b] + q as i64 - k as i64;
        let hidden = (self.is_causal && distance < 0)
            || (self.left >= 0 && distance > self.left)
            || (self.right >= 0 && -distance > self.right)
            || self.lengths.as_ref().is_some_and(|n| k as i64 >= n[b]);
        match &self.given {
            _ if hidden => f32::NEG_INFINITY,
            None => 0.0,
            Some((_, _, columns)) if k >= *columns => f32::NEG_INFINITY,
            Some((values, steps, _)) => {
                values[b * steps[0] + h * steps[1] + q * steps[2] + k * steps[3]]
            }
        }
    }
}

/// A mask with fewer columns than keys hides the keys beyond.
fn read(mask: &Tensor, shape: [usize; 4]) -> Result<(Vec<f32>, Vec<usize>, usize), OpError> {
    let mut values = Dense::read(mask)?;
    if mask.dtype() == DataType::Bool {
        let hide = |v: &mut f32| *v = if *v == 0.0 { f32::NEG_INFINITY } else { 0.0 };
        values.data.iter_mut().for_each(hide);
    }
    let columns = match values.shape.last() {
        Some(1) | None => shape[3],
        Some(columns) => *columns,
    };
    let target = [shape[0], shape[1], shape[2], columns];
    if columns > shape[3] || broadcast::shapes(&values.shape, &target)? != target {
        let message = format!("a mask {:?} for scores {shape:?}", values.shape);
        return Err(OpError::shape(message));
    }
    Ok((values.data, broadcast::strides(&values.shape, &target), columns))
}
