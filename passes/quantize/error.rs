//! Why a model can't be quantised.

use planish_ir::{GraphError, TensorError, VerifyError};
use planish_kernels::infer::InferError;

use crate::transform::TransformError;

/// Why a model can't be quantised.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum QuantizeError {
    #[error("the model has no linear layer that could be quantised: {0}")]
    NoLinears(String),
    #[error("the weight \"{weight}\" has an element that is not a finite number")]
    NotFinite { weight: String },
    #[error(
        "a group size of {group_size} does not divide the {channels} input channels of {layer}"
    )]
    GroupSize { layer: String, channels: usize, group_size: usize },
    #[error("weights of {bits} bits are not supported for {what}: {allowed}")]
    HeadBits { bits: u8, what: &'static str, allowed: &'static str },
    #[error("{layer} is not as its layout has it: was the model changed in between?")]
    StaleLayout { layer: String },
    #[error("SmoothQuant needs the activations' ranges at {site}, and none were collected")]
    MissingStats { site: String },
    #[error("weight \"{weight}\": {error}")]
    Weight { weight: String, error: TensorError },
    #[error(transparent)]
    Transform(#[from] TransformError),
    #[error(transparent)]
    Infer(#[from] InferError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("after quantisation: {0}")]
    Verify(#[from] VerifyError),
}
