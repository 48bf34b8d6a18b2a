//! Reading and writing ONNX files.
//!
//! [`read_model`] maps the file and its external data into memory, so tensors take no memory of
//! their own until they are read; [`write_model`] streams them out again.

pub mod error;
pub mod proto;

mod read;
mod write;

pub use error::{Problem, ReadError, TensorProblem, WriteError};
pub use read::{find_model, read_model, read_model_bytes};
pub use write::{ExternalData, ValueInfo, WriteOptions, WriteReport, write_model};
