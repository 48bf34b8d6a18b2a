//! What can go wrong on reading and writing.

use std::io;
use std::path::PathBuf;

use planish_ir::text::builder::BuildError;
use planish_ir::{GraphError, TensorError, VerifyError};

/// Why a model can't be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReadError {
    #[error("can't read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("there is no model at {}: {reason}", path.display())]
    NotFound { path: PathBuf, reason: String },
    #[error("{file} is not an ONNX file: {reason}")]
    NotOnnx { file: String, reason: String },
    #[error("{file}: {problem}")]
    Invalid { file: String, problem: Problem },
}

/// What is wrong with the contents of a model.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Problem {
    #[error("{0}")]
    Build(#[from] BuildError),
    #[error("{0}")]
    Verify(#[from] VerifyError),
    #[error("the tensor \"{tensor}\": {problem}")]
    Tensor { tensor: String, problem: TensorProblem },
    #[error("{holder} has element type number {code}, which ONNX does not define")]
    UnknownType { holder: String, code: i32 },
    #[error("{place} has {what}, which planish can't keep")]
    Unsupported { place: String, what: &'static str },
    #[error("the attribute \"{attribute}\" of {node} {reason}")]
    Attribute { node: String, attribute: String, reason: String },
    #[error("{0} without a name")]
    Nameless(&'static str),
    #[error("the model-local function {0} is defined twice")]
    FunctionTwice(String),
}

/// What is wrong with the data of a tensor.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TensorProblem {
    #[error("{0}")]
    Data(#[from] TensorError),
    #[error("its element type has the number {0}, which ONNX does not define")]
    UnknownType(i32),
    #[error("its shape {0:?} has a negative size")]
    NegativeSize(Vec<i64>),
    #[error("it is stored in segments, which planish can't read")]
    Segments,
    #[error("its element {0} does not fit its element type")]
    Range(i64),
    #[error("strings can't be stored in an external file")]
    ExternalStrings,
    #[error("it is in an external file, but the model was read without a folder")]
    NoFolder,
    #[error("it is in an external file, but says no location")]
    NoLocation,
    #[error("its external file \"{location}\" lies outside of the model's folder {}", folder.display())]
    Outside { location: String, folder: PathBuf },
    #[error("can't read its external file {}: {source}", path.display())]
    ExternalFile { path: PathBuf, source: io::Error },
    #[error("its external {key} is \"{value}\", which is not a number of bytes")]
    BadNumber { key: &'static str, value: String },
    #[error("it takes {needed} bytes, but its external length is {length}")]
    ExternalLength { needed: usize, length: u64 },
    #[error(
        "it needs {needed} bytes from byte {offset} of its external file {}, \
         which has only {actual} bytes", path.display()
    )]
    TooShort { path: PathBuf, offset: u64, needed: usize, actual: usize },
}

/// Why a model can't be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WriteError {
    #[error("can't write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} would have {bytes} bytes, but a protobuf file holds less than 2 GiB: \
         write the weights as external data", path.display()
    )]
    TooLarge { path: PathBuf, bytes: usize },
    #[error("\"{0}\" can't be the name of an external data file: it must be a plain file name")]
    FileName(String),
    #[error("{0}")]
    Cycle(#[from] GraphError),
    #[error("the attribute \"{attribute}\" of {node} holds bytes that are no attribute: {source}")]
    Attribute { node: String, attribute: String, source: prost::DecodeError },
    #[error("the type of the value \"{value}\" holds bytes that are no type: {source}")]
    Type { value: String, source: prost::DecodeError },
}
