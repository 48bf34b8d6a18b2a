//! Grouped-query attention: over a key/value cache, and over keys and values that are activations.

mod decode;
mod dense;
mod load;
mod prefill;

pub use dense::{
    AttentionGradients, AttentionInputs, AttentionMask, DenseAttention, HeadLayout, MaskValues,
    attention_backward, attention_forward,
};

use crate::Isa;
use crate::kv::KvCache;
use crate::pool::ThreadPool;
use std::ops::Range;

/// Shape and masks of an attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSpec<'a> {
    /// Query heads, a multiple of `n_kv_heads`.
    pub n_heads: usize,
    /// Key/value heads; query head h reads head h / (n_heads / n_kv_heads).
    pub n_kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Factor on the scores, commonly 1/√head_dim.
    pub scale: f32,
    /// With c, scores become c · tanh(score / c) before the masks.
    pub softcap: Option<f32>,
    /// Whether the query at position p sees only the keys 0..=p.
    pub causal: bool,
    /// With w, the query at position p sees only keys above p − w.
    pub window: Option<usize>,
    /// Per key of the cache, whether it may be seen.
    pub pad_mask: Option<&'a [bool]>,
}

impl AttentionSpec<'_> {
    /// The keys that the query at `position` sees, but for the padding mask.
    pub(crate) fn visible(&self, position: usize, n_keys: usize) -> Range<usize> {
        visible(self.causal, self.window, position, n_keys)
    }

    /// Query heads of a key/value head.
    pub(crate) fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// The keys among `n_keys` that a query at `position` sees; see [`AttentionSpec`].
fn visible(causal: bool, window: Option<usize>, position: usize, n_keys: usize) -> Range<usize> {
    let end = if causal { (position + 1).min(n_keys) } else { n_keys };
    let start = window.map_or(0, |w| (position + 1).saturating_sub(w));
    start.min(end)..end
}

/// out\[s, n_heads·head_dim\] = softmax(scale · q·Kᵀ) · V, for `q` of the same shape.
///
/// The cache holds the keys and values of the past and of the new tokens: query i has position
/// `past_len` + i. A query that sees no key gives zeros.
///
/// # Panics
/// When the shapes disagree, or `pad_mask` is shorter than the cache.
pub fn attention(
    pool: &ThreadPool,
    isa: Isa,
    q: &[f32],
    cache: &KvCache,
    past_len: usize,
    spec: AttentionSpec<'_>,
    out: &mut [f32],
) {
    let width = spec.n_heads * spec.head_dim;
    let kv = cache.spec();
    assert!(kv.n_kv_heads == spec.n_kv_heads && kv.head_dim == spec.head_dim, "cache shape");
    assert!(spec.n_kv_heads > 0 && spec.n_heads.is_multiple_of(spec.n_kv_heads), "query heads");
    assert!(q.len() == out.len() && (width == 0 || q.len().is_multiple_of(width)), "query length");
    assert!(spec.pad_mask.is_none_or(|m| m.len() >= cache.len()), "padding mask length");
    let s = if width == 0 { 0 } else { q.len() / width };
    match s {
        0 => {}
        _ if cache.is_empty() => out.fill(0.0),
        1 => decode::decode(pool, isa, q, cache, past_len, spec, out),
        _ => prefill::prefill(pool, isa, q, cache, past_len, spec, out),
    }
}
