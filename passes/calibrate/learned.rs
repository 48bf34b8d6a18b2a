//! What was learned, in the terms of transforms and quantisers.

use std::collections::BTreeMap;

use planish_ir::{Tensor, TensorError};

use super::{CalibrateError, ClipSlots, MatrixSlots, ParameterId, Student};
use crate::quantize::{Calibration, Clip, ModelQuantizer, QuantizeError, WeightClip};
use crate::sites::{AttentionId, LinearId, SiteId};
use crate::transform::{Matrix, SiteMatrix, SiteTransform};

/// What was learned at a site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LearnedSite {
    /// Shift, scale and matrix.
    pub transform: SiteTransform,
    /// Clipping of the activation.
    pub clip: Option<Clip>,
}

/// What was learned of a linear layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LearnedLinear {
    /// The weight before its transforms, f32 `[K, N]`, where it was learned.
    pub weight: Option<Tensor>,
    /// Clipping of the weight after its transforms.
    pub clip: Option<WeightClip>,
}

/// What was learned at an attention.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LearnedAttention {
    /// P_h.
    pub matrix: Option<Matrix>,
    /// Clipping of keys.
    pub key_clip: Option<Clip>,
    /// Clipping of values.
    pub value_clip: Option<Clip>,
}

/// What was learned in a block, under the ids of the whole model's layout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LearnedBlock {
    /// At its sites.
    pub sites: BTreeMap<SiteId, LearnedSite>,
    /// Of its linear layers.
    pub linears: BTreeMap<LinearId, LearnedLinear>,
    /// At its attentions.
    pub attentions: BTreeMap<AttentionId, LearnedAttention>,
}

impl LearnedBlock {
    /// Reads the final values of a student's parameters.
    ///
    /// # Errors
    /// If a value is no tensor of floats.
    pub fn new(student: &Student, values: &[Tensor]) -> Result<Self, CalibrateError> {
        let reader = Reader { student, values };
        let mut learned = Self::default();
        for (id, slots) in &student.sites {
            let scale = slots.scale.map(|slot| reader.floats(slot)).transpose()?;
            let scale = scale.map(|logs| logs.iter().map(|log| f64::from(*log).exp()).collect());
            let shift = slots.shift.map(|slot| reader.floats(slot)).transpose()?;
            let shift = shift.map(|values| values.into_iter().map(f64::from).collect());
            let matrix = reader.site_matrix(slots.matrix)?;
            let transform = SiteTransform { shift, scale, matrix };
            let clip = slots.clip.map(|clip| reader.clip(clip)).transpose()?;
            learned.sites.insert(*id, LearnedSite { transform, clip });
        }
        for (id, slots) in &student.linears {
            let weight = slots.weight.map(|slot| values[slot.0].clone());
            let clip = slots.clip.map(|clip| reader.ratios(clip)).transpose()?;
            learned.linears.insert(*id, LearnedLinear { weight, clip });
        }
        for (id, slots) in &student.attentions {
            let clip = |slots: Option<ClipSlots>| slots.map(|clip| reader.clip(clip)).transpose();
            let matrix = slots.matrix.map(|slot| reader.matrix(slot)).transpose()?;
            let (key_clip, value_clip) = (clip(slots.key_clip)?, clip(slots.value_clip)?);
            let attention = LearnedAttention { matrix, key_clip, value_clip };
            learned.attentions.insert(*id, attention);
        }
        Ok(learned)
    }
}

impl LearnedBlock {
    /// Puts transforms and clipping where [`crate::quantize::quantize_with`] looks for them.
    pub fn add_to(&self, calibration: &mut Calibration) {
        let Calibration { transforms, clips, .. } = calibration;
        for (id, site) in &self.sites {
            *entry(&mut transforms.sites, id.0) = site.transform.clone();
            *entry(&mut clips.activations, id.0) = site.clip;
        }
        for (id, linear) in &self.linears {
            entry(&mut clips.weights, id.0).clone_from(&linear.clip);
        }
        for (id, attention) in &self.attentions {
            entry(&mut transforms.heads, id.0).clone_from(&attention.matrix);
            *entry(&mut clips.keys, id.0) = attention.key_clip;
            *entry(&mut clips.values, id.0) = attention.value_clip;
        }
    }

    /// Puts learned weights in the place of those of the canonical model.
    ///
    /// # Errors
    /// If a layer is not where the layout says.
    pub fn replace_weights(&self, quantizer: &mut ModelQuantizer<'_>) -> Result<(), QuantizeError> {
        for (id, linear) in &self.linears {
            if let Some(weight) = &linear.weight {
                quantizer.replace_weight(*id, weight.clone())?;
            }
        }
        Ok(())
    }
}

fn entry<T: Clone + Default>(list: &mut Vec<T>, index: usize) -> &mut T {
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}

/// Reads parameters.
struct Reader<'a> {
    student: &'a Student,
    values: &'a [Tensor],
}

impl Reader<'_> {
    fn floats(&self, id: ParameterId) -> Result<Vec<f32>, CalibrateError> {
        let fail = |error: TensorError| CalibrateError::Weight {
            weight: self.student.parameters[id.0].name.clone(),
            error,
        };
        self.values[id.0].to_f32_vec().map_err(fail)
    }

    fn matrix(&self, id: ParameterId) -> Result<Matrix, CalibrateError> {
        let data = self.floats(id)?;
        let n = data.len().isqrt();
        // In the end, all bands of a gradual mask are open.
        let beside = f64::from(self.student.gradual.unwrap_or(1.0));
        let factor = |i, j| if i == j { 1.0 } else { beside };
        Ok(Matrix::from_fn(n, n, |i, j| factor(i, j) * f64::from(data[i * n + j])))
    }

    fn site_matrix(&self, slots: MatrixSlots) -> Result<SiteMatrix, CalibrateError> {
        let optional = |slot: Option<ParameterId>| slot.map(|slot| self.matrix(slot)).transpose();
        Ok(match slots {
            MatrixSlots::Identity => SiteMatrix::Identity,
            MatrixSlots::Kronecker { left, right } => {
                SiteMatrix::Kronecker { left: optional(left)?, right: self.matrix(right)? }
            }
            MatrixSlots::Heads { across, within } => {
                SiteMatrix::Heads { across: optional(across)?, within: optional(within)? }
            }
        })
    }

    fn ratios(&self, clip: ClipSlots) -> Result<WeightClip, CalibrateError> {
        let sigmoid = |values: Vec<f32>| values.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        let (max, min) = (self.floats(clip.max)?, self.floats(clip.min)?);
        Ok(WeightClip { max: sigmoid(max), min: sigmoid(min) })
    }

    fn clip(&self, clip: ClipSlots) -> Result<Clip, CalibrateError> {
        let WeightClip { max, min } = self.ratios(clip)?;
        let first = |values: Vec<f32>| values.first().copied().unwrap_or(1.0);
        Ok(Clip { max: first(max), min: first(min) })
    }
}
