//! The error of the application layer.
use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use planish_runtime::ModelError;
use thiserror::Error;

/// Why the application could not do what it was asked for.
#[derive(Debug, Error)]
pub enum AppError {
    /// A path that must exist does not, or cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The input is not acceptable; the sentence says why.
    #[error("{0}")]
    Input(String),
    /// Something in a library failed on this input.
    #[error("{what}")]
    Failed {
        /// What was being done, for instance "cannot load model.onnx".
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The model refused its input.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An invariant of the program is broken: the command line reports it as a bug.
    #[error("{0}")]
    Internal(String),
}

impl AppError {
    /// An error whose cause is another error.
    pub fn failed(
        what: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::Failed { what: what.into(), source: source.into() }
    }
}

/// Checks that a file or folder exists and may be looked at.
///
/// # Errors
/// [`AppError::Unreadable`].
pub fn check_readable(path: &Path) -> Result<(), AppError> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(source) => Err(AppError::Unreadable { path: path.into(), source }),
    }
}
