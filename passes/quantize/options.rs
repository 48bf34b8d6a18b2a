//! What to quantise and how, and what came of it.

use super::BitWidths;

/// How outliers are flattened before rounding.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Method {
    /// Not at all: round to nearest.
    #[default]
    Rtn,
    /// Per-channel scales between activations and weights (SmoothQuant, arXiv 2211.10438); needs
    /// [`super::CalibrationStats`].
    SmoothQuant {
        /// How much of the activations' range moves into the weights, 0 to 1; 0.5 is usual.
        alpha: f64,
    },
    /// Hadamard matrices with random signs at all sites (QuaRot, arXiv 2404.00456).
    Hadamard,
    /// Random orthogonal matrices at all sites.
    Orthogonal,
}

/// How weights of linear layers become codes, once their scales are known.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Rounding {
    /// Each to the nearest.
    #[default]
    Nearest,
    /// By GPTQ (arXiv 2210.17323), so that the layer's output changes least; needs the
    /// [`super::Hessian`] of every site.
    Gptq {
        /// What is added to the diagonal of the Hessian, in units of its mean; 0.01 is usual.
        damp: f64,
        /// Whether channels of large activations are rounded first. Groups keep their scales and
        /// their places all the same.
        act_order: bool,
    },
}

impl Rounding {
    /// GPTQ with the damping of the paper, channels of large activations first.
    pub const GPTQ: Self = Self::Gptq { damp: 0.01, act_order: true };
}

/// A request to quantise a model.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizeOptions {
    /// Widths of weights, activations and KV cache.
    pub bits: BitWidths,
    /// How outliers are flattened.
    pub method: Method,
    /// Whether the rotations of [`Method::Hadamard`] and [`Method::Orthogonal`] may run in the model;
    /// if not, only those within heads of values are taken, which merge into weights.
    pub online: bool,
    /// Input channels of a linear layer that share a scale; `None`: all of them.
    pub group_size: Option<usize>,
    /// Whether the range of the weights is shrunk to where the squared error is least. Layers
    /// whose weight clips were learned are not searched.
    pub clip_search: bool,
    /// Whether that search weighs the error of each input channel by the diagonal of the site's
    /// [`super::Hessian`], where there is one.
    pub weighted_search: bool,
    /// How weights become codes.
    pub rounding: Rounding,
    /// Bits of the head's weights, and of the embedding if it is tied: 8, 16 (left alone), or 4
    /// for a head that is not tied.
    pub lm_head_bits: u8,
    /// Bits of an embedding that is not tied: 8, or 16 (left alone).
    pub embedding_bits: u8,
    /// Seed of random signs and matrices.
    pub seed: u64,
}

impl Default for QuantizeOptions {
    /// W4A4KV4, round to nearest with clipping search (not weighted), head in 8 bits, an
    /// embedding of its own as it is.
    fn default() -> Self {
        Self {
            bits: BitWidths::W4A4KV4,
            method: Method::Rtn,
            online: true,
            group_size: None,
            clip_search: true,
            weighted_search: false,
            rounding: Rounding::Nearest,
            lm_head_bits: 8,
            embedding_bits: 16,
            seed: 0,
        }
    }
}

/// How far the work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Groups of sites (blocks, mostly) that are done, the head counted as one more.
    pub done: usize,
    /// Groups in all.
    pub total: usize,
}

/// What quantisation did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizeReport {
    /// Linear layers whose weights or inputs were quantised, without the head.
    pub n_linears: usize,
    /// Matrix products and attentions that were left alone.
    pub n_left_alone: usize,
    /// Bytes of all constants of the graph before.
    pub weight_bytes_before: usize,
    /// Bytes of all constants of the graph after.
    pub weight_bytes_after: usize,
    /// Squared error of all quantised weights of linear layers over their squared norm, after
    /// transforms; 0 where weights were left in floating point.
    pub weight_error: f64,
    /// What the user should know: nodes left alone and why, options without effect.
    pub notes: Vec<String>,
}
