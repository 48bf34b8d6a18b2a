//! Writing the output folder.
use std::path::Path;

use planish_ir::Model;
use planish_onnx::{ExternalData, ValueInfo, WriteOptions};
use planish_passes::emit::{EMITTED_OPSET, lower_for_opset};
use planish_runtime::text::{TokenizerConfig, text_folder};

use crate::app::error::AppError;
use crate::app::output_folder::OutputFolder;

/// Initializers from this size on go to the external data file.
const EXTERNAL_BYTES: usize = 1024;

/// Writes the model for other runtimes, reads it back and checks it.
pub(super) fn emit(model: &mut Model, folder: &OutputFolder) -> Result<(), AppError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        AppError::failed("cannot write the quantised model", error)
    };
    model.producer_name = "planish".into();
    model.producer_version = env!("CARGO_PKG_VERSION").into();
    lower_for_opset(model, EMITTED_OPSET).map_err(|error| failed(error.into()))?;
    let path = folder.path().join("model.onnx");
    let external_data =
        ExternalData::Beside { file_name: "model.onnx.data".into(), min_bytes: EXTERNAL_BYTES };
    let options = WriteOptions { external_data, value_info: ValueInfo::Declared };
    planish_onnx::write_model(model, &path, &options).map_err(|error| failed(error.into()))?;
    let written = planish_onnx::read_model(&path).map_err(|error| failed(error.into()))?;
    planish_kernels::infer::infer(&written).map_err(|error| failed(error.into()))?;
    Ok(())
}

/// Copies the files that travel with the model, which may lie one folder up. Not among them is
/// `genai_config.json`, as it describes the graph of before: what it alone says about the end of
/// a text goes into a `generation_config.json`.
pub(super) fn copy_companions(file: &Path, folder: &OutputFolder) -> Result<(), AppError> {
    let own = file.parent().unwrap_or(Path::new(""));
    let of_text = text_folder(file).unwrap_or_else(|_| own.to_owned());
    folder.copy_companions(&[own, &of_text])?;
    let end_ids =
        |path: &Path| TokenizerConfig::load(path).map(|config| config.eos_ids).unwrap_or_default();
    let before = end_ids(&of_text);
    let has_own = folder.path().join("generation_config.json").exists();
    if has_own || before.is_empty() || end_ids(folder.path()) == before {
        return Ok(());
    }
    let config = serde_json::json!({ "eos_token_id": before });
    folder.write("generation_config.json", config.to_string().as_bytes())
}
