//! Which transform goes where.

use super::Matrix;
use crate::sites::{AttentionId, Layout, SiteId};

/// The transforms of a model, parallel to the sites and attentions of its layout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransformSet {
    /// One for each of [`Layout::sites`].
    pub sites: Vec<SiteTransform>,
    /// P_h for each of [`Layout::attentions`], `[head_size, head_size]`: keys are multiplied by
    /// it per head, queries by its inverse's transpose.
    pub heads: Vec<Option<Matrix>>,
}

/// What is done to the activation of a site: the shift is subtracted, it is divided by the scale,
/// then multiplied by the matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SiteTransform {
    /// δ, what is subtracted from every channel, merged into the bias of the norm before and as
    /// δ·W into those of the site's layers; only where [`Layout::takes_shift`].
    pub shift: Option<Vec<f64>>,
    /// What every channel is divided by, merged into the layer before: one value for each channel
    /// of the site, or of the attention's values where the site reads an attention (all query
    /// heads of a group share those).
    pub scale: Option<Vec<f64>>,
    /// The matrix.
    pub matrix: SiteMatrix,
}

/// The matrix of a site.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SiteMatrix {
    /// None.
    #[default]
    Identity,
    /// P₁ ⊗ P₂, applied online (FlatQuant's P_a, P_ug, P_d).
    Kronecker {
        /// P₁, `[n₁, n₁]`; nothing is the identity: P₂ is applied to each run of n₂ channels.
        left: Option<Matrix>,
        /// P₂, `[n₂, n₂]`.
        right: Matrix,
    },
    /// For a site that reads an attention: P_o ⊗ P_v.
    Heads {
        /// P_o, `[q_heads, q_heads]`, applied online.
        across: Option<Matrix>,
        /// P_v, `[v_head_size, v_head_size]`, folded into the layer of the values.
        within: Option<Matrix>,
    },
}

impl TransformSet {
    /// A set without any transform.
    pub fn identity(layout: &Layout) -> Self {
        Self {
            sites: vec![SiteTransform::default(); layout.sites.len()],
            heads: vec![None; layout.attentions.len()],
        }
    }

    /// The transform of a site, if the set has one.
    pub fn site(&self, id: SiteId) -> Option<&SiteTransform> {
        self.sites.get(id.0)
    }

    /// P_h of an attention, if the set has one.
    pub fn head(&self, id: AttentionId) -> Option<&Matrix> {
        self.heads.get(id.0)?.as_ref()
    }
}
