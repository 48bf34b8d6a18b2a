//! Quantising a whole model.

use planish_ir::{Model, Tensor};

use super::cache::quantize_cache;
use super::head::{quantize_embedding, quantize_head};
use super::linear::ErrorSums;
use super::method::transforms_of;
use super::notes::notes;
use super::replace::replace_weight;
use super::site::{constant_bytes, note_left_alone, quantize_site};
use super::{
    Calibration, CalibrationStats, Progress, QuantizeError, QuantizeOptions, QuantizeReport,
};
use crate::sites::{Group, Head, Layout, LinearId};
use crate::transform::insert_group;

/// Quantises a canonical model in place: transforms of the method, then weights, activations, KV
/// cache and head in the bits that `options` give. Block by block, so that no more than one
/// block's weights are held as floats of their own. `stats` are needed by SmoothQuant alone;
/// `progress` is called after every block.
///
/// # Errors
/// If there is nothing to quantise, an option does not go with a layer, or a weight is not
/// finite. The model is then half rewritten and must be dropped.
pub fn quantize(
    model: &mut Model,
    options: &QuantizeOptions,
    stats: Option<&CalibrationStats>,
    progress: &mut dyn FnMut(Progress),
) -> Result<QuantizeReport, QuantizeError> {
    let layout = Layout::new(model)?;
    let transforms = transforms_of(&model.graph, &layout, options, stats)?;
    let calibration = Calibration::of_transforms(transforms);
    quantize_with(model, &layout, &calibration, options, progress)
}

/// As [`quantize`], with the layout, and with what was learned; the method of `options` is not
/// looked at.
///
/// # Errors
/// As [`quantize`], and if something that was learned does not fit or is missing.
pub fn quantize_with(
    model: &mut Model,
    layout: &Layout,
    calibration: &Calibration,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<QuantizeReport, QuantizeError> {
    let mut quantizer = ModelQuantizer::new(model, layout, options)?;
    let total = quantizer.n_groups() + 1;
    for index in 0..quantizer.n_groups() {
        progress(Progress { done: index, total });
        quantizer.quantize_group(index, calibration)?;
    }
    progress(Progress { done: total - 1, total });
    let report = quantizer.finish()?;
    progress(Progress { done: total, total });
    Ok(report)
}

/// A model that is being quantised, one of [`Layout::groups`] after the other, so that what is
/// known about a group may be found out when those before it are quantised, and dropped after it.
pub struct ModelQuantizer<'a> {
    model: &'a mut Model,
    /// Of its own, as it goes along when weights are replaced.
    layout: Layout,
    options: &'a QuantizeOptions,
    /// `None` where a group is done.
    groups: Vec<Option<Group>>,
    sums: ErrorSums,
    report: QuantizeReport,
}

impl<'a> ModelQuantizer<'a> {
    /// Starts on a canonical model whose layout this is. If the quantiser is dropped before
    /// [`ModelQuantizer::finish`] or has failed, so must be the model.
    ///
    /// # Errors
    /// If there is nothing to quantise.
    pub fn new(
        model: &'a mut Model,
        layout: &Layout,
        options: &'a QuantizeOptions,
    ) -> Result<Self, QuantizeError> {
        if layout.linears.is_empty() {
            return Err(QuantizeError::NoLinears(layout.to_string()));
        }
        let mut report = QuantizeReport {
            weight_bytes_before: constant_bytes(&model.graph),
            notes: notes(layout, options),
            ..QuantizeReport::default()
        };
        note_left_alone(layout, &mut report);
        let groups = layout.groups().into_iter().map(Some).collect();
        Ok(Self {
            model,
            layout: layout.clone(),
            options,
            groups,
            sums: ErrorSums::default(),
            report,
        })
    }

    /// How many groups there are.
    pub fn n_groups(&self) -> usize {
        self.groups.len()
    }

    /// The model as it is now.
    pub fn model(&self) -> &Model {
        self.model
    }

    /// As [`replace_weight`], before the layer's group is quantised.
    ///
    /// # Errors
    /// As [`replace_weight`].
    pub fn replace_weight(&mut self, id: LinearId, weight: Tensor) -> Result<(), QuantizeError> {
        replace_weight(self.model, &mut self.layout, id, weight)
    }

    /// Transforms and quantises the group of this index; of the calibration only what is about its
    /// sites, layers and attentions is looked at.
    ///
    /// # Errors
    /// If there is no such group or it was quantised before, or as [`quantize_with`].
    pub fn quantize_group(
        &mut self,
        index: usize,
        calibration: &Calibration,
    ) -> Result<(), QuantizeError> {
        let n_groups = self.groups.len();
        let none = QuantizeError::NoSuchGroup { index, n_groups };
        let group = self.groups.get_mut(index).and_then(Option::take).ok_or(none)?;
        let (layout, options) = (&self.layout, self.options);
        let bits = options.bits;
        insert_group(self.model, layout, &calibration.transforms, &group)?;
        let graph = &mut self.model.graph;
        for id in &group.sites {
            quantize_site(graph, layout, *id, calibration, options, &mut self.sums)?;
            if bits.quantizes_weights() || bits.quantizes_activations() {
                self.report.n_linears += layout.site(*id).linears.len();
            }
        }
        for id in group.attentions.iter().filter(|_| bits.quantizes_kv()) {
            let clips = [calibration.clips.key(*id), calibration.clips.value(*id)];
            quantize_cache(graph, layout.attention(*id), bits.kv, clips)?;
        }
        graph.remove_dead();
        Ok(())
    }

    /// Quantises head and embedding. Groups that were not quantised are left as they are.
    ///
    /// # Errors
    /// If the head can't have the bits of the options, or the graph does not verify.
    pub fn finish(mut self) -> Result<QuantizeReport, QuantizeError> {
        if let Some(head) = &self.layout.head {
            let QuantizeOptions { lm_head_bits, clip_search, .. } = *self.options;
            quantize_head(self.model, head, lm_head_bits, clip_search)?;
        }
        let tied = self.layout.head.as_ref().is_some_and(Head::is_tied);
        if let Some(lookup) = self.layout.embedding.filter(|_| !tied) {
            let QuantizeOptions { embedding_bits, clip_search, .. } = *self.options;
            quantize_embedding(self.model, lookup, embedding_bits, clip_search)?;
        }
        self.model.graph.remove_dead();
        planish_ir::verify(self.model)?;
        let ErrorSums { error, norm } = self.sums;
        self.report.weight_error = if norm > 0.0 { error / norm } else { 0.0 };
        self.report.weight_bytes_after = constant_bytes(&self.model.graph);
        Ok(self.report)
    }
}
