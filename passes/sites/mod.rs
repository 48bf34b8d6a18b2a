//! Blocks and sites: where a decoder can be transformed and quantised, found from the graph's
//! topology and never from names.
//!
//! The *residual stream* is the chain of values that everything on the way from the embedding to
//! the logits goes through; *blocks* are its like-shaped pieces; a *site* is a group of linear
//! layers that read the same activation, the place of one transform (FlatQuant's P_a, P_o, P_ug
//! and P_d in a Llama block).

mod attention;
mod blocks;
mod display;
mod dominators;
mod find;
mod head;
mod linears;
mod residual;
mod roles;
mod stream;

#[cfg(test)]
mod tests;

use std::ops::Range;

use planish_ir::{NodeId, ValueId};

pub use residual::{Reader, ResidualStream};

/// Which input of a norm is its bias.
pub(crate) const NORM_BIAS: usize = 2;

/// Index into [`Layout::linears`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinearId(pub usize);

/// Index into [`Layout::sites`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub usize);

/// Index into [`Layout::attentions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttentionId(pub usize);

/// What a decoder's graph is made of. The ids of values and nodes are those of the model that the
/// layout was made of. Rewriting keeps the values that layers read and write, norms and attentions;
/// the `MatMul` and the weight of a layer may be others afterwards, and their ids in use again.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Linear layers but the head, in topological order.
    pub linears: Vec<LinearLayer>,
    /// Groups of linear layers that read the same value, in order of their first layers.
    pub sites: Vec<Site>,
    /// `Attention` nodes, in topological order.
    pub attentions: Vec<AttentionSite>,
    /// The repeated pieces of the residual stream, in order.
    pub blocks: Vec<Block>,
    /// The `Gather` that the residual stream begins with, if it does with one.
    pub embedding: Option<NodeId>,
    /// The layer that makes the logits.
    pub head: Option<Head>,
    /// Matrix products and attentions that are left alone, and why.
    pub left_alone: Vec<LeftAlone>,
}

/// Columns of a linear layer's output under the name of a value of their own.
pub type PartColumns = (ValueId, Range<usize>);

/// A linear layer: `MatMul(x [..., K], W [K, N])`, with or without `Add(product, bias [N])`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearLayer {
    /// The `MatMul`.
    pub node: NodeId,
    /// The activation that it reads.
    pub input: ValueId,
    /// The weight, f32 `[in_features, out_features]`.
    pub weight: ValueId,
    /// K.
    pub in_features: usize,
    /// N.
    pub out_features: usize,
    /// The bias, if there is one.
    pub bias: Option<Bias>,
    /// The result, bias included.
    pub output: ValueId,
    /// The outputs of the `Split` of a fused projection, with their columns; else the output as a
    /// whole.
    pub parts: Vec<PartColumns>,
}

/// The bias of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bias {
    /// The `Add`.
    pub node: NodeId,
    /// Which of its inputs is the bias.
    pub index: usize,
    /// The bias, f32 `[out_features]`.
    pub value: ValueId,
}

/// A group of linear layers that read the same activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The activation, `[batch, sequence, channels]`.
    pub input: ValueId,
    /// Its channels.
    pub channels: usize,
    /// The layers.
    pub linears: Vec<LinearId>,
    /// Projections among them, those that are fused into one layer counted apart.
    pub n_parts: usize,
    /// What stands before it.
    pub role: SiteRole,
}

/// What stands before a site, and so where scales and transforms of its channels can be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteRole {
    /// The output of a norm that nothing else reads: scales merge into the norm's weight, shifts
    /// into its bias ([`Layout::takes_shift`]).
    Norm {
        /// `RMSNormalization` or `LayerNormalization`.
        node: NodeId,
    },
    /// The output of an attention whose values come straight from a linear layer: scales and
    /// per-head transforms merge there.
    AttentionOutput {
        /// The attention.
        attention: AttentionId,
        /// Where its values come from.
        value: Part,
    },
    /// The product of an activation function and a linear layer's output (SwiGLU, GeGLU): scales
    /// merge into that layer.
    GatedMlp {
        /// The layer that is not under the activation function.
        up: Part,
    },
    /// Nothing that a scale can merge into.
    Other,
}

/// Columns of a linear layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The layer.
    pub linear: LinearId,
    /// The columns.
    pub columns: Range<usize>,
}

/// An `Attention` node, 3-D inputs, with what can be done to its heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionSite {
    /// The node.
    pub node: NodeId,
    /// Query heads.
    pub q_heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels of a query or key head.
    pub head_size: usize,
    /// Channels of a value head.
    pub v_head_size: usize,
    /// Whether queries and keys can be multiplied by P⁻ᵀ and P per head; if not, why.
    pub head_transform: Result<HeadTransform, String>,
}

/// How queries and keys of an attention can be transformed per head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadTransform {
    /// By an operator before the attention: something (a rotary embedding, a norm) stands between
    /// them and their linear layers.
    Online,
    /// In the linear layers that they come from.
    Folded {
        /// The layer of the queries.
        query: Part,
        /// The layer of the keys.
        key: Part,
    },
}

/// A repeated piece of the residual stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The stream before it.
    pub input: ValueId,
    /// The stream after it.
    pub output: ValueId,
    /// Its nodes that the output depends on, in topological order.
    pub nodes: Vec<NodeId>,
    /// Its sites.
    pub sites: Vec<SiteId>,
    /// Its attentions.
    pub attentions: Vec<AttentionId>,
}

/// The layer that makes the logits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The `MatMul`.
    pub node: NodeId,
    /// Its weight: `[hidden, vocabulary]`, or `[vocabulary, hidden]` where `transpose` is set.
    pub weight: ValueId,
    /// The `Transpose` between weight and product.
    pub transpose: Option<NodeId>,
    /// The `Gather` nodes that look embeddings up in the same weight: the head is tied.
    pub embeddings: Vec<NodeId>,
}

impl Head {
    /// Whether the head's weight is the embedding's table too.
    pub fn is_tied(&self) -> bool {
        !self.embeddings.is_empty()
    }
}

/// A node that is neither transformed nor quantised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// The node, as messages call it.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// Sites and attentions that can be worked on apart from the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The sites.
    pub sites: Vec<SiteId>,
    /// The attentions.
    pub attentions: Vec<AttentionId>,
}

impl Layout {
    /// A linear layer.
    pub fn linear(&self, id: LinearId) -> &LinearLayer {
        &self.linears[id.0]
    }

    /// A site.
    pub fn site(&self, id: SiteId) -> &Site {
        &self.sites[id.0]
    }

    /// An attention.
    pub fn attention(&self, id: AttentionId) -> &AttentionSite {
        &self.attentions[id.0]
    }

    /// All sites.
    pub fn site_ids(&self) -> impl Iterator<Item = SiteId> + use<> {
        (0..self.sites.len()).map(SiteId)
    }

    /// The sites and attentions of each block, then those outside of all blocks, if any.
    pub fn groups(&self) -> Vec<Group> {
        let of_block =
            |b: &Block| Group { sites: b.sites.clone(), attentions: b.attentions.clone() };
        let mut groups: Vec<Group> = self.blocks.iter().map(of_block).collect();
        let mut rest = Group {
            sites: self.site_ids().collect(),
            attentions: (0..self.attentions.len()).map(AttentionId).collect(),
        };
        rest.sites.retain(|site| !groups.iter().any(|g| g.sites.contains(site)));
        rest.attentions.retain(|a| !groups.iter().any(|g| g.attentions.contains(a)));
        if rest != Group::default() {
            groups.push(rest);
        }
        groups
    }
}
