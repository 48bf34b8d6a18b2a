//! Why calibration can't be set up.

use planish_ir::TensorError;
use planish_kernels::infer::InferError;

use crate::PassError;
use crate::autodiff::AutodiffError;

/// Why a block can't be cut out or learned.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// There is nothing to learn.
    #[error("no repeated blocks were found in the graph: nothing can be calibrated")]
    NoBlocks,
    /// A weight that is computed, not stored.
    #[error("the weight \"{weight}\" is no constant")]
    NotConstant {
        /// Its name.
        weight: String,
    },
    /// A weight that can't be read.
    #[error("weight \"{weight}\": {error}")]
    Weight {
        /// Its name.
        weight: String,
        /// Why.
        error: TensorError,
    },
    /// A group size that does not divide the channels.
    #[error("the group size {group_size} does not divide the {channels} input channels of {layer}")]
    GroupSize {
        /// The layer.
        layer: String,
        /// Its input channels.
        channels: usize,
        /// The size asked for.
        group_size: usize,
    },
    /// A piece of the graph that does not hang together as one.
    #[error("{what} can't be cut out: {reason}")]
    Cut {
        /// The piece.
        what: String,
        /// Why.
        reason: String,
    },
    /// Shapes that contradict each other.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// An operator that nothing can be learned through.
    #[error(transparent)]
    Autodiff(#[from] AutodiffError),
    /// A rewriting that failed.
    #[error(transparent)]
    Pass(#[from] PassError),
}
