//! What a model file contains.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::{AppError, check_readable};

/// A graph input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueReport {
    /// Its name.
    pub name: String,
    /// ONNX's name of the element type, for instance `float16`.
    pub dtype: String,
    /// Extents: numbers, names of symbolic dimensions, or `?`.
    pub shape: Vec<String>,
}

/// Summary of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectReport {
    /// The file that was read.
    pub path: PathBuf,
    /// Name and version of the exporter, as the file states them.
    pub producer: String,
    /// Version of each operator set, by domain (`ai.onnx` for the standard one).
    pub opsets: BTreeMap<String, i64>,
    /// Inputs of the graph, in its order.
    pub inputs: Vec<ValueReport>,
    /// Outputs of the graph, in its order.
    pub outputs: Vec<ValueReport>,
    /// How many nodes of each operator there are, by `domain::op` (no domain for standard ones).
    pub nodes: BTreeMap<String, usize>,
    /// Number of elements of all weights.
    pub parameters: u64,
    /// Bytes of all weights as stored.
    pub weight_bytes: u64,
    /// Bytes of the weights by element type.
    pub weight_bytes_by_dtype: BTreeMap<String, u64>,
    /// The file's own key-value metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Reads an `.onnx` file (or `model.onnx` in a folder) and sums it up.
///
/// # Errors
/// [`AppError`] when the path cannot be read or is no ONNX model.
pub fn inspect(path: &Path) -> Result<InspectReport, AppError> {
    check_readable(path)?;
    Err(AppError::no_engine("inspect", path))
}
