//! What can be wrong with a GGUF file.

use std::io;

/// Why a GGUF file, or a tensor in it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file does not begin with `GGUF`.
    #[error("not a GGUF file: it does not begin with \"GGUF\"")]
    Magic,
    /// The version is neither 2 nor 3 (a big-endian file shows here as well).
    #[error("GGUF version {0} is not supported (2 and 3 are, little-endian)")]
    Version(u32),
    /// The file ends inside its header.
    #[error("truncated GGUF file: it ends inside its header")]
    Truncated,
    /// A key, string or tensor name is not UTF-8.
    #[error("a string in the GGUF header is not valid UTF-8")]
    Utf8,
    /// A metadata value has an unknown type number.
    #[error("metadata value type {0} is not known to GGUF")]
    ValueType(u32),
    /// Arrays are nested too deeply.
    #[error("metadata arrays are nested too deeply")]
    Nesting,
    /// `general.alignment` is zero or not an integer.
    #[error("general.alignment is not a positive integer")]
    Alignment,
    /// A tensor has a type that this crate does not dequantise.
    #[error("tensor \"{name}\" has type {number}; F32 (0), F16 (1), Q4_1 (3), Q8_0 (8) are read")]
    TensorType {
        /// The tensor.
        name: String,
        /// ggml's number for its type.
        number: u32,
    },
    /// A tensor's axes are too many, too large, or do not hold whole blocks.
    #[error("tensor \"{name}\" has axes {axes:?}, which {reason}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// Its axes, innermost first as stored.
        axes: Vec<u64>,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A tensor's data lies outside the file.
    #[error("truncated GGUF file: the data of tensor \"{0}\" lies beyond its end")]
    TensorOutside(String),
    /// The file has no tensor of that name.
    #[error("no tensor \"{0}\"")]
    NoTensor(String),
    /// Quantised data does not consist of whole blocks.
    #[error("{bytes} bytes are no whole number of {block}-byte blocks")]
    PartBlock {
        /// Length of the data.
        bytes: usize,
        /// Length of a block.
        block: usize,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}
