//! Opening a model as a language model, and running a graph on given arrays.
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use planish_ir::Model;
use planish_runtime::LanguageModel;
use planish_runtime::decoder::{Decoder, DecoderOptions, forward_arrays};
use planish_runtime::engine::cpu::CpuEngine;
use planish_runtime::npz::NpyArray;

use super::error::{AppError, check_readable};
use super::finite::check_weights;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Device {
    /// CUDA where there is a usable GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU; an error where there is none.
    Cuda,
}

/// How to open a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Where to compute.
    pub device: Device,
    /// Threads of the CPU engine; nothing means one a core.
    pub threads: Option<usize>,
    /// Number of sequences that run side by side; at least 1.
    pub batch: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { device: Device::Auto, threads: None, batch: 1 }
    }
}

/// The engine for a device.
///
/// # Errors
/// [`AppError::Input`] where the device was asked for by name and is not there.
pub(super) fn engine(options: &OpenOptions) -> Result<CpuEngine, AppError> {
    match options.device {
        Device::Auto | Device::Cpu => Ok(CpuEngine::new(options.threads.unwrap_or(0))),
        Device::Cuda => Err(AppError::Input(
            "this build has no CUDA engine; use --device cpu or --device auto".into(),
        )),
    }
}

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
    let decoder_options = DecoderOptions { batch: options.batch, ..DecoderOptions::default() };
    let decoder = Decoder::new(model, &engine, decoder_options)
        .map_err(|error| AppError::failed(format!("cannot run {}", file.display()), error))?;
    for (op, count) in &decoder.summary().fallbacks {
        tracing::warn!("{count} × {op} runs by its slow reference form");
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
    forward_arrays(&model, &engine, inputs)
        .map_err(|error| AppError::failed(format!("cannot run {}", file.display()), error))
}
