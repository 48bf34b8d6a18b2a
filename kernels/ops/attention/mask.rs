//! Which keys a query of `Attention` sees.

use planish_ir::{DataType, Tensor};

use crate::op::optional;
use crate::ops::common::broadcast;
use crate::ops::support::Dense;
use crate::{OpError, OpNode};

/// The mask input, causality, window and lengths of one node, taken together.
pub(in crate::ops) struct Mask {
    /// Elements (−∞ and 0 for a bool mask), and where they lie.
    given: Option<(Vec<f32>, Place)>,
    /// Keys of each sequence that count.
    lengths: Option<Vec<i64>>,
    /// Position of the first query among the keys, for each sequence.
    first: Vec<i64>,
    is_causal: bool,
    left: i64,
    right: i64,
}

/// Where the elements of a mask lie.
pub(super) struct Place {
    /// Steps along `[b, h, q, k]`.
    pub steps: [usize; 4],
    /// Keys that the mask knows; those beyond are hidden.
    pub columns: usize,
}

impl Place {
    /// Of a mask of shape `mask` for scores of shape `[b, h, q, k]`. A mask with fewer columns
    /// than keys hides the keys beyond.
    pub fn new(mask: &[usize], scores: [usize; 4]) -> Result<Self, OpError> {
        let columns = match mask.last() {
            Some(1) | None => scores[3],
            Some(columns) => *columns,
        };
        let target = [scores[0], scores[1], scores[2], columns];
        let wrong = || OpError::shape(format!("a mask {mask:?} for scores {scores:?}"));
        if columns > scores[3] || broadcast::shapes(mask, &target)? != target {
            return Err(wrong());
        }
        let steps = broadcast::strides(mask, &target).try_into().map_err(|_| wrong())?;
        Ok(Self { steps, columns })
    }
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
            Some((_, place)) if k >= place.columns => f32::NEG_INFINITY,
            Some((values, Place { steps, .. })) => {
                values[b * steps[0] + h * steps[1] + q * steps[2] + k * steps[3]]
            }
        }
    }
}

fn read(mask: &Tensor, shape: [usize; 4]) -> Result<(Vec<f32>, Place), OpError> {
    let mut values = Dense::read(mask)?;
    if mask.dtype() == DataType::Bool {
        let hide = |v: &mut f32| *v = if *v == 0.0 { f32::NEG_INFINITY } else { 0.0 };
        values.data.iter_mut().for_each(hide);
    }
    let place = Place::new(&values.shape, shape)?;
    Ok((values.data, place))
}
