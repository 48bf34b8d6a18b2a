//! Which parameter does what.

use crate::calibrate::ParameterId;

/// The two clipping parameters of a quantiser: the largest value is multiplied by sigmoid(max),
/// the smallest by sigmoid(min).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipSlots {
    /// Of the largest value.
    pub max: ParameterId,
    /// Of the smallest value.
    pub min: ParameterId,
}

/// The matrix of a site; see [`crate::transform::SiteMatrix`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatrixSlots {
    /// None.
    #[default]
    Identity,
    /// P₁ and P₂.
    Kronecker {
        /// P₁, `[n₁, n₁]`; nothing is the identity.
        left: Option<ParameterId>,
        /// P₂, `[n₂, n₂]`.
        right: ParameterId,
    },
    /// P_o and P_v.
    Heads {
        /// P_o, `[q_heads, q_heads]`.
        across: Option<ParameterId>,
        /// P_v, `[v_head_size, v_head_size]`.
        within: Option<ParameterId>,
    },
}

/// The parameters of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteSlots {
    /// The per-channel shifts, `[channels]`.
    pub shift: Option<ParameterId>,
    /// Logarithms of the per-channel scales, `[channels]`.
    pub scale: Option<ParameterId>,
    /// The matrix.
    pub matrix: MatrixSlots,
    /// Clipping of the activation, `[1]` each.
    pub clip: Option<ClipSlots>,
}

/// The parameters of a linear layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinearSlots {
    /// The weight `[K, N]` itself, where it is learned.
    pub weight: Option<ParameterId>,
    /// Clipping of the weight, `[N]` or `[K / group_size, N]` each.
    pub clip: Option<ClipSlots>,
}

/// The parameters of an attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionSlots {
    /// P_h, `[head_size, head_size]`.
    pub matrix: Option<ParameterId>,
    /// Clipping of the cached keys, `[1]` each.
    pub key_clip: Option<ClipSlots>,
    /// Clipping of the cached values, `[1]` each.
    pub value_clip: Option<ClipSlots>,
}
