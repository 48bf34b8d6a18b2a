//! Errors.

use std::fmt;
use std::path::PathBuf;

/// Why there are no logits.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// tract refused the model.
    #[error("tract can't {stage} {path}: {reason}")]
    Tract {
        /// The ONNX file.
        path: PathBuf,
        /// What tract was doing.
        stage: Stage,
        /// tract's words, the outermost first.
        reason: String,
    },
    /// An input of which it is not known what to feed.
    #[error("the input \"{name}\" of shape {shape} is none of a language model's")]
    Input {
        /// Its name.
        name: String,
        /// Its shape as tract writes it.
        shape: String,
    },
}

/// What tract does with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the file and building each operator.
    Read,
    /// Inferring types and shapes, and optimising.
    Analyse,
    /// Computing.
    Run,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Analyse => "analyse",
            Self::Run => "run",
        })
    }
}
