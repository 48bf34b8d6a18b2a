//! What `planish.json` says about a quantised model.
use std::path::Path;

use serde::Deserialize;

use crate::app::error::AppError;

/// The fields of `planish.json` that the page shows; those that are younger than the first
/// version of the file may be absent.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    pub(super) planish: String,
    pub(super) source: String,
    pub(super) method: String,
    pub(super) bits: String,
    pub(super) group_size: Option<usize>,
    pub(super) rounding: Option<String>,
    pub(super) lm_head_bits: Option<u8>,
    pub(super) seed: Option<u64>,
    pub(super) calibration: Option<String>,
    pub(super) effort: Option<String>,
    pub(super) recipe: Option<String>,
    pub(super) layers_quantised: usize,
    pub(super) layers_left_alone: usize,
    pub(super) weight_bytes_before: u64,
    pub(super) weight_bytes_after: u64,
    pub(super) seconds: Option<f64>,
    #[serde(default)]
    pub(super) notes: Vec<String>,
    /// The loss of every step of every block; a loss that was no finite number is nothing.
    #[serde(default)]
    pub(super) block_losses: Vec<Vec<Option<f64>>>,
    /// The KL divergence of every step of the last stage, likewise.
    #[serde(default)]
    pub(super) divergences: Vec<Option<f64>>,
}

impl Record {
    /// Reads the `planish.json` of a folder.
    ///
    /// # Errors
    /// [`AppError`] when the folder has none, or one that planish did not write.
    pub(super) fn read(folder: &Path) -> Result<Self, AppError> {
        let path = folder.join("planish.json");
        let text = std::fs::read_to_string(&path).map_err(|source| {
            let what = format!("cannot read {}, which planish quantize writes", path.display());
            AppError::failed(what, source)
        })?;
        serde_json::from_str(&text).map_err(|error| {
            AppError::failed(format!("cannot understand {}", path.display()), error)
        })
    }

    /// The settings, as rows of name and value.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let text = |value: &Option<String>| value.clone();
        let rows = [
            ("Original model", Some(self.source.clone())),
            ("Method", Some(self.method.clone())),
            ("Bits of weights, activations, KV cache", Some(self.bits.clone())),
            ("Weights that share a scale", self.group_size.map(|n| n.to_string())),
            ("Rounding", text(&self.rounding)),
            ("Bits of the last layer's weights", self.lm_head_bits.map(|n| n.to_string())),
            ("Calibration text", text(&self.calibration)),
            ("Effort", text(&self.effort)),
            ("Recipe", self.recipe.as_ref().map(|recipe| recipe.replace(',', ", "))),
            ("Seed", self.seed.map(|n| n.to_string())),
            ("Linear layers quantised", Some(self.layers_quantised.to_string())),
            ("Linear layers left alone", Some(self.layers_left_alone.to_string())),
            ("Time taken", self.seconds.map(|s| format!("{s:.1} s"))),
            ("Made by", Some(format!("planish {}", self.planish))),
        ];
        rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
