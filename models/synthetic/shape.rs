//! Sizes of a Llama.

use crate::error::{Error, Result};

/// Sizes of a model of the Llama family whose head has a weight of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaShape {
    /// Channels of the residual stream.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_size: usize,
    /// Channels between the MLP's products.
    pub intermediate: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Longest wave length of the rotary embedding, over 2π.
    pub rope_theta: f64,
    /// What the norms add to the mean square.
    pub epsilon: f32,
}

impl LlamaShape {
    /// Llama-3-8B: 8.0 billion parameters, 16 GB in 16 bits.
    pub const LLAMA_3_8B: Self = Self {
        hidden: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_size: 128,
        intermediate: 14336,
        vocabulary: 128_256,
        rope_theta: 500_000.0,
        epsilon: 1e-5,
    };

    /// The same family in a few hundred kilobytes, for tests.
    pub const TINY: Self = Self {
        hidden: 128,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_size: 32,
        intermediate: 256,
        vocabulary: 512,
        ..Self::LLAMA_3_8B
    };

    /// Refuses sizes that no such model can have.
    pub(super) fn check(&self) -> Result<()> {
        let sizes = [self.hidden, self.layers, self.heads, self.kv_heads, self.head_size];
        let reason = if sizes.contains(&0) || self.intermediate == 0 || self.vocabulary == 0 {
            "no size may be 0"
        } else if !self.heads.is_multiple_of(self.kv_heads) {
            "query heads must be a multiple of key and value heads"
        } else if !self.head_size.is_multiple_of(2) {
            "rotary embeddings need heads of even size"
        } else {
            return Ok(());
        };
        Err(Error::Shape(reason))
    }
}
