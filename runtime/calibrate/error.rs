//! Why calibration failed.

use std::path::PathBuf;

use planish_kernels::infer::InferError;
use planish_passes::calibrate::CalibrateError;
use planish_passes::quantize::QuantizeError;

use crate::decoder::DecoderError;
use crate::engine::EngineError;
use crate::npz::NpzError;

/// Why calibration failed.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// Less text than one step takes.
    #[error(
        "the calibration text has {tokens} tokens, but a step learns from {batch} windows of \
         {length}"
    )]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Windows of a step.
        batch: usize,
        /// Tokens of a window.
        length: usize,
    },
    /// Windows longer than the model's table of positions.
    #[error("the model takes {capacity} tokens, but the windows have {length}")]
    TooLong {
        /// Tokens of a window.
        length: usize,
        /// Positions of the model.
        capacity: usize,
    },
    /// A block that reads an activation that is not the same for all windows.
    #[error(
        "block {block} reads \"{value}\", which depends on the text: it can't be learned alone"
    )]
    Outside {
        /// Number of the block.
        block: usize,
        /// The activation.
        value: String,
    },
    /// A block that can't be set up.
    #[error(transparent)]
    Setup(#[from] CalibrateError),
    /// The model is no decoder.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    /// Shapes that contradict each other.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A block that can't be quantised.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A tensor of a type or shape that was not expected.
    #[error("\"{value}\" is not what was expected: {problem}")]
    Value {
        /// The value.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// A block whose loss is no number from the start.
    #[error("the loss of block {block} is not a number: its weights or inputs are not finite")]
    NotFinite {
        /// Number of the block.
        block: usize,
    },
    /// What was learned before can't be read or written.
    #[error("{path}: {error}")]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: NpzError,
    },
    /// What was learned before was learned for something else.
    #[error(
        "{path} was left by a run with other options or another model: remove it, or give the \
         options of that run"
    )]
    OtherRun {
        /// The folder.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot use {path}: {error}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}
