//! Opening a model as a language model, and running a graph on given arrays.
use std::path::Path;

use clap::ValueEnum;
use planish_runtime::LanguageModel;
use planish_runtime::npz::NpyArray;

use super::error::{AppError, check_readable};

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

/// Loads a language model from an `.onnx` file or from a folder with `model.onnx`.
///
/// # Errors
/// [`AppError`] when the path cannot be read, when the graph is no causal language model, or when
/// the device is missing.
pub fn open_model(path: &Path, options: &OpenOptions) -> Result<Box<dyn LanguageModel>, AppError> {
    check_readable(path)?;
    let _ = options;
    Err(AppError::no_engine("open", path))
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
    check_readable(path)?;
    let _ = (inputs, options);
    Err(AppError::no_engine("run", path))
}
