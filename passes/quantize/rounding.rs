//! How the weights of one site's layers become codes.

use planish_ir::Graph;

use super::weight::{
    Clipping, QuantizedWeight, WeightError, WeightFormat, column_scales, round_columns,
};
use super::{Calibration, Gptq, Hessian, QuantizeError, QuantizeOptions, Rounding};
use crate::sites::{Layout, LinearId, SiteId};

/// What a request and a calibration say about the weights of a site; the Hessian is factorised
/// once for all of its layers.
pub(super) struct SiteRounding<'a> {
    calibration: &'a Calibration,
    clip_search: bool,
    format: WeightFormat,
    importance: Option<Vec<f32>>,
    gptq: Option<Gptq>,
}

impl<'a> SiteRounding<'a> {
    /// # Errors
    /// If a Hessian is missing that is needed, or is of no use.
    pub(super) fn new(
        graph: &Graph,
        layout: &Layout,
        id: SiteId,
        calibration: &'a Calibration,
        options: &QuantizeOptions,
    ) -> Result<Self, QuantizeError> {
        let site = || layout.describe_site(graph, id);
        let hessian = calibration.hessians.site(id);
        let expected = layout.site(id).channels;
        if let Some(hessian) = hessian.filter(|hessian| hessian.n_channels() != expected) {
            let actual = hessian.n_channels();
            return Err(QuantizeError::HessianSize { site: site(), expected, actual });
        }
        let gptq = match options.rounding {
            Rounding::Nearest => None,
            Rounding::Gptq { damp, act_order } => {
                let missing = || QuantizeError::MissingHessian { site: site() };
                let gptq = Gptq::new(hessian.ok_or_else(missing)?, damp, act_order);
                let unusable = |error| QuantizeError::Hessian { site: site(), error };
                Some(gptq.map_err(unusable)?)
            }
        };
        let (bits, group_size) = (options.bits.weights, options.group_size);
        Ok(Self {
            calibration,
            clip_search: options.clip_search,
            format: WeightFormat { bits, group_size },
            importance: hessian.filter(|_| options.weighted_search).map(Hessian::importance),
            gptq,
        })
    }

    /// Rounds the transformed weight `[K, N]` of a layer.
    pub(super) fn round(
        &self,
        id: LinearId,
        weight: &[f32],
        n_columns: usize,
    ) -> Result<QuantizedWeight, WeightError> {
        let clipping = match self.calibration.clips.weight(id) {
            Some(clip) => Clipping::Learned(clip),
            None if self.clip_search => Clipping::Search { importance: self.importance.as_deref() },
            None => Clipping::Full,
        };
        let scales = column_scales(weight, n_columns, self.format, clipping)?;
        match &self.gptq {
            Some(gptq) => gptq.quantize_columns(weight, n_columns, self.format, scales),
            None => round_columns(weight, n_columns, self.format, scales),
        }
    }
}
