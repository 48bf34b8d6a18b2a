//! Quantising a model into a new folder.
use std::path::PathBuf;

use clap::ValueEnum;
use planish_passes::quantize::BitWidths;
use serde::Serialize;

use super::error::{AppError, check_readable};
use super::model::OpenOptions;

/// How outliers are flattened before rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Method {
    /// No transform: round to nearest.
    #[default]
    Rtn,
    /// Per-channel scales between activations and weights (SmoothQuant).
    Smoothquant,
    /// Hadamard rotations (QuaRot).
    Hadamard,
    /// Orthogonal transforms of each site.
    Orthogonal,
}

/// How the quantised graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Fused nodes, each with a model-local function in standard ops.
    #[default]
    Fused,
}

/// A request to quantise a model.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizeRequest {
    /// An `.onnx` file, or a folder with `model.onnx`.
    pub model: PathBuf,
    /// The folder to write.
    pub output: PathBuf,
    /// How outliers are flattened.
    pub method: Method,
    /// Widths of weights, activations and KV cache.
    pub bits: BitWidths,
    /// Weights that share a scale along the input channels; nothing means a whole output channel.
    pub group_size: Option<usize>,
    /// Text to calibrate with.
    pub calibration: Option<PathBuf>,
    /// How the result is written.
    pub format: Format,
    /// Seed of everything random.
    pub seed: u64,
    /// Device and threads; the batch is not used.
    pub open: OpenOptions,
    /// Whether weight clipping is searched for the least error.
    pub clip_search: bool,
    /// Width of the weights of the last linear layer: 4, 8 or 16.
    pub lm_head_bits: u8,
    /// Folder for the graph after every pass.
    pub dump_ir: Option<PathBuf>,
}

/// How far the work has come: `done` of `total` steps of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage<'a> {
    /// Name of the stage, for instance "calibrate".
    pub name: &'a str,
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
}

/// What quantisation did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizeReport {
    /// The folder that was written.
    pub output: PathBuf,
    /// Linear layers that were quantised.
    pub layers: usize,
    /// Linear layers that were left as they are.
    pub layers_left: usize,
    /// Bytes of weights before.
    pub weight_bytes_before: u64,
    /// Bytes of weights after.
    pub weight_bytes_after: u64,
    /// Time taken.
    pub seconds: f64,
    /// What the user should know: layers left alone and why, fall-backs.
    pub notes: Vec<String>,
}

/// Quantises a model, writes it into a folder, and copies tokenizer and configs along.
///
/// # Errors
/// [`AppError`] when a path cannot be read or written, or when the model or the request is not
/// supported.
pub fn quantize(
    request: &QuantizeRequest,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<QuantizeReport, AppError> {
    check_readable(&request.model)?;
    request.calibration.as_deref().map_or(Ok(()), check_readable)?;
    let _ = progress;
    Err(AppError::no_engine("quantise", &request.model))
}
