//! Writing the output folder.
use std::path::Path;

use planish_ir::Model;
use planish_onnx::{ExternalData, ValueInfo, WriteOptions};
use planish_passes::emit::{EMITTED_OPSET, lower_for_opset, lower_to_standard};
use planish_runtime::text::{TokenizerConfig, text_folder};

use super::genai::GenaiModel;
use super::request::{Format, QuantizeRequest};
use crate::app::error::AppError;
use crate::app::output_folder::OutputFolder;

/// Initializers from this size on go to the external data file.
const EXTERNAL_BYTES: usize = 1024;

/// Writes the model for other runtimes, reads it back and checks it; with what a runtime needs
/// beside it. Returns what the user should know.
pub(super) fn emit(
    request: &QuantizeRequest,
    model: &mut Model,
    file: &Path,
    folder: &OutputFolder,
) -> Result<Vec<String>, AppError> {
    model.producer_name = "planish".into();
    model.producer_version = env!("CARGO_PKG_VERSION").into();
    let mut notes = Vec::new();
    match request.format {
        Format::Fused => lower_for_opset(model, EMITTED_OPSET).map(|_| ()).map_err(failed)?,
        Format::Qdq => lower_to_standard(model, EMITTED_OPSET).map(|_| ()).map_err(failed)?,
        Format::MatMulNBits => {
            let genai = GenaiModel::lower(model, file, request.bits)?;
            folder.write("genai_config.json", genai.config()?.as_bytes())?;
            notes = genai.notes();
        }
    }
    write(model, folder)?;
    Ok(notes)
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AppError {
    AppError::failed("cannot write the quantised model", error)
}

fn write(model: &Model, folder: &OutputFolder) -> Result<(), AppError> {
    let path = folder.path().join("model.onnx");
    let external_data =
        ExternalData::Beside { file_name: "model.onnx.data".into(), min_bytes: EXTERNAL_BYTES };
    let options = WriteOptions { external_data, value_info: ValueInfo::Declared };
    planish_onnx::write_model(model, &path, &options).map_err(failed)?;
    let written = planish_onnx::read_model(&path).map_err(failed)?;
    planish_kernels::infer::infer(&written).map_err(failed)?;
    Ok(())
}

/// Copies the files that travel with the model, which may lie one folder up. Not among them is
/// `genai_config.json`, as it describes the graph of before (the format `matmulnbits` has one of its
/// own): what it alone says about the end of
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
