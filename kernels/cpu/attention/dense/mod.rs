//! Attention over keys and values that are activations, and its gradient, for training.
//!
//! The scores of a block of queries with all keys that they see are held at once; a core's second
//! cache has room for them. So the softmax needs no running maximum, and the gradient needs
//! neither the output nor the sums of the forward pass: it takes five products, where a blockwise
//! softmax (FlashAttention, Dao et al. 2022) takes as many and both.

mod backward;
mod forward;
mod layout;
mod mask;
mod scores;
mod span;

pub use backward::{AttentionGradients, attention_backward};
pub use forward::attention_forward;
pub use layout::HeadLayout;
pub use mask::{AttentionMask, MaskValues};

use std::ops::Range;

/// Shapes, scale and masks of softmax(scale · q·kᵀ + mask) · v.
#[derive(Clone, Copy, Debug)]
pub struct DenseAttention<'a> {
    /// Queries.
    pub q: HeadLayout,
    /// Keys: `q.heads` is a multiple of `k.heads`, and query head h reads the keys and values of
    /// head h / (q.heads / k.heads).
    pub k: HeadLayout,
    /// Values; their `dim` may differ from that of the keys.
    pub v: HeadLayout,
    /// The result: the heads and rows of the queries, the `dim` of the values.
    pub y: HeadLayout,
    /// Factor on the scores, commonly 1/√dim.
    pub scale: f32,
    /// With c, scores become c · tanh(score / c) before the masks.
    pub softcap: Option<f32>,
    /// Whether the query at position p sees only the keys 0..=p.
    pub causal: bool,
    /// With w, the query at position p sees only keys above p − w.
    pub window: Option<usize>,
    /// The position of the first query; those after it follow one by one.
    pub first_position: usize,
    /// What else hides keys.
    pub mask: Option<AttentionMask<'a>>,
}

/// The tensors of an attention, each as its [`HeadLayout`] says.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
}

impl DenseAttention<'_> {
    /// Query heads of a key/value head.
    fn group(&self) -> usize {
        self.q.heads / self.k.heads
    }

    /// The keys that query `row` sees, but for the explicit mask.
    fn visible(&self, row: usize) -> Range<usize> {
        super::visible(self.causal, self.window, self.first_position + row, self.k.rows)
    }

    /// Whether there is nothing to compute.
    fn is_empty(&self) -> bool {
        [self.q, self.k, self.v].iter().any(|x| x.n_elements() == 0)
    }

    /// # Panics
    /// When the shapes disagree.
    fn check(&self, x: &AttentionInputs<'_>, y: &[f32]) {
        let (q, k, v) = (self.q, self.k, self.v);
        let lengths = [(q, x.q), (k, x.k), (v, x.v), (self.y, y)];
        assert!(lengths.iter().all(|(l, x)| l.n_elements() == x.len()), "attention lengths");
        assert!(k.heads > 0 && q.heads.is_multiple_of(k.heads), "query heads");
        assert!(q.dim == k.dim && (q.batch, k.batch) == (k.batch, v.batch), "keys");
        assert!((k.heads, k.rows) == (v.heads, v.rows), "values");
        let y = HeadLayout { head_major: q.head_major, ..self.y };
        assert!(y == HeadLayout { dim: v.dim, ..q }, "result of attention");
        let scores = [q.batch, q.heads, q.rows, k.rows];
        assert!(self.mask.is_none_or(|mask| mask.fits(scores)), "mask of attention");
    }
}
