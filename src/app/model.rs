//! Opening a model as a language model, and running a graph on given arrays.
use std::path::{Path, PathBuf};

use planish_ir::Model;
use planish_runtime::LanguageModel;
use planish_runtime::decoder::{Decoder, DecoderOptions, forward_arrays};
use planish_runtime::npz::NpyArray;

use super::device::{OpenOptions, engine};
use super::error::{AppError, check_readable};
use super::finite::check_weights;

/// Reads the `.onnx` file at `path`, or the model in the folder `path`.
///
/// # Errors
/// [`AppError`] when there is none, or it can't be read.
pub(super) fn read(path: &Path) -> Result<(Model, PathBuf), AppError> {
    check_readable(path)?;
    let loading = |error: planish_onnx::ReadError| AppError::failed("cannot load the model", error);
    let file = planish_onnx::find_model(path).map_err(loading)?;
    let model = planish_onnx::read_model(&file).map_err(loading)?;
    Ok((model, file))
}

/// Loads a language model from an `.onnx` file or from a folder with `model.onnx`.
///
/// # Errors
/// [`AppError`] when the path cannot be read, when a weight is not finite, when the graph is no
/// causal language model, or when the device is missing.
pub fn open_model(path: &Path, options: &OpenOptions) -> Result<Box<dyn LanguageModel>, AppError> {
    let engine = engine(options)?;
    let (model, file) = read(path)?;
    check_weights(&model, &file)?;
    let (batch, chunk, scores) = (options.batch, engine.best_chunk(), options.scores);
    let decoder_options = DecoderOptions { batch, chunk, scores, ..DecoderOptions::default() };
    let decoder = Decoder::new(model, &*engine, decoder_options)
        .map_err(|error| AppError::failed(format!("cannot run {}", file.display()), error))?;
    if decoder.recomputes() {
        tracing::warn!("the export has no KV cache: every token computes all before it anew");
    }
    for (op, count) in &decoder.summary().fallbacks {
        tracing::warn!("{count} × {op} has no fast form on this device");
    }
    Ok(Box::new(decoder))
}

/// Runs the graph of an `.onnx` file (or of `model.onnx` in a folder) on named arrays; returns its
/// outputs in the graph's order.
///
/// # Errors
/// [`AppError`] when the path cannot be read, or when an input is missing, unknown, or of another
/// type or shape than the graph says.
pub fn forward(
    path: &Path,
    inputs: Vec<(String, NpyArray)>,
    options: &OpenOptions,
) -> Result<Vec<(String, NpyArray)>, AppError> {
    let engine = engine(options)?;
    let (model, file) = read(path)?;
    forward_arrays(&model, &*engine, inputs)
        .map_err(|error| AppError::failed(format!("cannot run {}", file.display()), error))
}
