//! `Attention` as the CPU primitives take it.

use std::borrow::Cow;

use planish_cpu::{AttentionMask, DenseAttention, HeadLayout, MaskValues};
use planish_ir::{DataType, Tensor};

use super::mask::{Mask, Place};
use crate::{OpError, OpNode};

/// Where the heads of an input lie: `[b, heads, s, d]`, or `[b, s, heads · d]` with the number of
/// heads given.
pub(in crate::ops) fn layout(shape: &[usize], heads: usize) -> Option<HeadLayout> {
    match *shape {
        [batch, heads, rows, dim] => Some(HeadLayout { batch, heads, rows, dim, head_major: true }),
        [batch, rows, hidden] if heads > 0 && hidden.is_multiple_of(heads) => {
            Some(HeadLayout { batch, heads, rows, dim: hidden / heads, head_major: false })
        }
        _ => None,
    }
}

/// The shape of a tensor laid out so.
pub(in crate::ops) fn shape(layout: &HeadLayout) -> Vec<usize> {
    let HeadLayout { batch, heads, rows, dim, head_major } = *layout;
    if head_major { vec![batch, heads, rows, dim] } else { vec![batch, rows, heads * dim] }
}

/// The layout of the result; `None` where queries, keys and values do not go together.
pub(in crate::ops) fn result(q: HeadLayout, k: HeadLayout, v: HeadLayout) -> Option<HeadLayout> {
    let fits = q.dim == k.dim
        && (q.batch, k.batch) == (k.batch, v.batch)
        && (k.heads, k.rows) == (v.heads, v.rows)
        && k.heads > 0
        && q.heads.is_multiple_of(k.heads);
    fits.then_some(HeadLayout { dim: v.dim, ..q })
}

/// What hides keys in one run.
pub(in crate::ops) struct Hiding<'a> {
    elements: Elements<'a>,
    steps: [usize; 4],
    columns: usize,
    causal: bool,
    window: Option<usize>,
    n_past: usize,
}

enum Elements<'a> {
    None,
    Bools(&'a [u8]),
    Floats(Cow<'a, [f32]>),
}

impl<'a> Hiding<'a> {
    /// Of `mask` and the attributes of `op`, for scores of shape `[b, h, q, k]` and `n_past` keys
    /// before those of the queries.
    pub fn new(
        op: &OpNode,
        mask: Option<&'a Tensor>,
        scores: [usize; 4],
        n_past: usize,
    ) -> Result<Self, OpError> {
        let causal = op.node.int("is_causal", 0) != 0;
        if op.node.int("right_window_size", -1) >= 0 && !causal {
            return Self::element_by_element(op, [None, mask], scores, n_past);
        }
        let left = usize::try_from(op.node.int("left_window_size", -1)).ok();
        let window = left.and_then(|left| left.checked_add(1));
        let Some(mask) = mask else {
            let (elements, steps, columns) = (Elements::None, [0; 4], scores[3]);
            return Ok(Self { elements, steps, columns, causal, window, n_past });
        };
        let Place { steps, columns } = Place::new(mask.shape(), scores)?;
        let elements = match mask.dtype() {
            DataType::Bool => Elements::Bools(mask.bytes()),
            DataType::F32 => Elements::Floats(mask.as_slice::<f32>()?),
            _ => Elements::Floats(Cow::Owned(mask.to_f32_vec()?)),
        };
        Ok(Self { elements, steps, columns, causal, window, n_past })
    }

    /// With everything that hides keys written out, for what the primitives do not know: lengths
    /// of sequences (the first of `inputs`) and windows that reach to the right.
    pub fn element_by_element(
        op: &OpNode,
        [lengths, mask]: [Option<&Tensor>; 2],
        scores: [usize; 4],
        n_past: usize,
    ) -> Result<Self, OpError> {
        let owned = [None, None, None, mask.cloned(), None, None, lengths.cloned()];
        let mask = Mask::new(op, &owned, scores, n_past)?;
        let [_, heads, rows, keys] = scores;
        let bias = |i: usize| {
            mask.bias(i / keys / rows / heads, i / keys / rows % heads, i / keys % rows, i % keys)
        };
        let values: Vec<f32> = (0..scores.iter().product()).map(bias).collect();
        Ok(Self {
            elements: Elements::Floats(Cow::Owned(values)),
            steps: [heads * rows * keys, rows * keys, keys, 1],
            columns: keys,
            causal: false,
            window: None,
            n_past,
        })
    }

    /// The attention of `op` over inputs laid out so.
    pub fn attention(&self, op: &OpNode, [q, k, v, y]: [HeadLayout; 4]) -> DenseAttention<'_> {
        let values = match &self.elements {
            Elements::None => None,
            Elements::Bools(values) => Some(MaskValues::Seen(values)),
            Elements::Floats(values) => Some(MaskValues::Added(values)),
        };
        let (steps, n_keys) = (self.steps, self.columns);
        DenseAttention {
            q,
            k,
            v,
            y,
            scale: scale(op, q.dim),
            softcap: Some(op.node.float("softcap", 0.0)).filter(|cap| *cap > 0.0),
            causal: self.causal,
            window: self.window,
            first_position: self.n_past,
            mask: values.map(|values| AttentionMask { values, steps, n_keys }),
        }
    }
}

/// The factor on the scores of heads of `dim` channels.
pub(in crate::ops) fn scale(op: &OpNode, dim: usize) -> f32 {
    op.node.float("scale", 1.0 / (dim as f32).sqrt())
}
