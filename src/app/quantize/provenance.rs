//! `planish.json`: how an output folder was made.
use std::path::Path;

use clap::ValueEnum;
use planish_runtime::calibrate::{Outcome, Recipe};

use super::request::{CalibrationText, QuantizeReport, QuantizeRequest};
use crate::app::error::AppError;

/// What was learned, for the record.
pub(super) struct LearningRecord<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) outcome: &'a Outcome,
}

/// The text of `planish.json`.
///
/// # Errors
/// [`AppError::Internal`] if it can't be made.
pub(super) fn provenance(
    request: &QuantizeRequest,
    file: &Path,
    report: &QuantizeReport,
    learning: Option<LearningRecord<'_>>,
) -> Result<String, AppError> {
    let used = request.calibration.as_ref().filter(|_| request.method.reads_text());
    let calibration = used.map(|text| match text {
        CalibrationText::File(path) => path.display().to_string(),
        CalibrationText::OwnWords => "self".to_owned(),
    });
    let mut record = serde_json::json!({
        "planish": env!("CARGO_PKG_VERSION"),
        "source": file.display().to_string(),
        "method": name_of(&request.method),
        "bits": request.bits.to_string(),
        "group_size": request.group_size,
        "rounding": name_of(&request.rounding),
        "no_online": request.no_online,
        "clip_search": request.clip_search,
        "lm_head_bits": request.lm_head_bits,
        "seed": request.seed,
        "calibration": calibration,
        "format": name_of(&request.format),
        "layers_quantised": report.layers,
        "layers_left_alone": report.layers_left,
        "weight_bytes_before": report.weight_bytes_before,
        "weight_bytes_after": report.weight_bytes_after,
        "seconds": report.seconds,
        "notes": report.notes,
    });
    if let Some(LearningRecord { recipe, outcome }) = learning {
        record["effort"] = name_of(&request.effort).into();
        record["recipe"] = recipe.to_string().into();
        record["block_losses"] = serde_json::json!(outcome.losses);
        record["divergences"] = serde_json::json!(outcome.divergences);
    }
    serde_json::to_string_pretty(&record)
        .map_err(|error| AppError::Internal(format!("planish.json can't be made: {error}")))
}

fn name_of(value: &impl ValueEnum) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}
