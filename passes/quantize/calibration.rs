//! What was learned about a model before it is quantised.

use super::Hessians;
use crate::sites::{AttentionId, LinearId, SiteId};
use crate::transform::TransformSet;

/// Everything that is known about a model when it is quantised; all of it may be left out.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    /// Transforms of the sites and heads.
    pub transforms: TransformSet,
    /// Clipping of activations, keys, values and weights.
    pub clips: Clips,
    /// What the layers of each site read, for [`super::Rounding::Gptq`] and for a clipping search
    /// that is weighted.
    pub hessians: Hessians,
}

impl Calibration {
    /// A calibration that knows transforms only.
    pub fn of_transforms(transforms: TransformSet) -> Self {
        Self { transforms, ..Self::default() }
    }
}

/// Factors on the extremes of a range before its scale is made: 1 clips nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Factor on the largest value.
    pub max: f32,
    /// Factor on the smallest value.
    pub min: f32,
}

impl Default for Clip {
    fn default() -> Self {
        Self { max: 1.0, min: 1.0 }
    }
}

impl Clip {
    /// Whether both factors are positive numbers.
    pub fn is_valid(self) -> bool {
        [self.max, self.min].iter().all(|clip| clip.is_finite() && *clip > 0.0)
    }
}

/// Factors on the extremes of the weights that share a scale, one for each scale: `[N]`, or
/// `[K / group_size, N]` row by row. They are of the weight after transforms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightClip {
    /// Factors on the largest weights.
    pub max: Vec<f32>,
    /// Factors on the smallest weights.
    pub min: Vec<f32>,
}

/// Clipping of a model. The lists are parallel to those of its layout; what is missing at their
/// ends or `None` is not clipped (activations, keys, values) or as the options have it (weights).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clips {
    /// Of the activation of each of [`crate::sites::Layout::sites`], after its transform.
    pub activations: Vec<Option<Clip>>,
    /// Of the keys of each of [`crate::sites::Layout::attentions`], after rotary embedding and
    /// P_h.
    pub keys: Vec<Option<Clip>>,
    /// Of the values of each of [`crate::sites::Layout::attentions`], after P_v.
    pub values: Vec<Option<Clip>>,
    /// Of the weight of each of [`crate::sites::Layout::linears`].
    pub weights: Vec<Option<WeightClip>>,
}

impl Clips {
    /// The clip of a site's activation.
    pub fn activation(&self, id: SiteId) -> Clip {
        clip_of(&self.activations, id.0)
    }

    /// The clip of an attention's keys.
    pub fn key(&self, id: AttentionId) -> Clip {
        clip_of(&self.keys, id.0)
    }

    /// The clip of an attention's values.
    pub fn value(&self, id: AttentionId) -> Clip {
        clip_of(&self.values, id.0)
    }

    /// The clips of a layer's weight, if there are any.
    pub fn weight(&self, id: LinearId) -> Option<&WeightClip> {
        self.weights.get(id.0)?.as_ref()
    }
}

fn clip_of(clips: &[Option<Clip>], index: usize) -> Clip {
    clips.get(index).copied().flatten().unwrap_or_default()
}
