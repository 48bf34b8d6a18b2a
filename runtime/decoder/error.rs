//! Why a graph can't be run as a decoder.

use planish_kernels::infer::InferError;
use planish_passes::PassError;
use planish_passes::quantize::QuantizeError;
use thiserror::Error;

use crate::engine::EngineError;

/// Why a graph can't be run as a decoder.
#[derive(Debug, Error)]
pub enum DecoderError {
    /// Something that every decoder has is not there.
    #[error("the graph is no decoder: it has no {0}")]
    Missing(&'static str),
    /// A cache, or the logits, whose sizes are not known.
    #[error("the {what} of \"{name}\" is not known before the graph runs")]
    UnknownSize {
        /// The size.
        what: &'static str,
        /// The input or output.
        name: String,
    },
    /// A cache of a fixed number of positions.
    #[error("the cache \"{name}\" always has {positions} positions, where a decoder's grows")]
    FixedCache {
        /// The input.
        name: String,
        /// Its positions.
        positions: usize,
    },
    /// A cache without the output that continues it.
    #[error("no output of the graph continues the cache \"{0}\"")]
    NoPresent(String),
    /// An input that none of a decoder's roles fits.
    #[error("the input \"{0}\" is neither token ids, attention mask, positions nor cache")]
    UnknownInput(String),
    /// An input whose element type can't be made.
    #[error("the input \"{name}\" has the element type {dtype}, which {what} can't have")]
    InputType {
        /// The input.
        name: String,
        /// Its element type.
        dtype: String,
        /// Its role.
        what: &'static str,
    },
    /// An array that a run on given arrays needs.
    #[error("the input \"{0}\" is missing")]
    MissingInput(String),
    /// An array for an input that the graph does not have.
    #[error("the graph has no input \"{0}\"")]
    NoSuchInput(String),
    /// An array of a type or shape that tensors do not have, or the other way round.
    #[error("the array \"{name}\" {problem}")]
    Array {
        /// The array.
        name: String,
        /// The end of the sentence.
        problem: String,
    },
    /// A number of sequences that can't run.
    #[error("a batch of 0 sequences can't run")]
    EmptyBatch,
    /// Shapes that contradict each other.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A site that is not in the model.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
