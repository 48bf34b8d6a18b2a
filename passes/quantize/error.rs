//! Why a model can't be quantised.

use planish_ir::{GraphError, TensorError, VerifyError};
use planish_kernels::infer::InferError;

use super::{Clip, HessianError, WeightError};
use crate::transform::TransformError;

/// Why a model can't be quantised.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum QuantizeError {
    #[error("the model has no linear layer that could be quantised: {0}")]
    NoLinears(String),
    #[error("the weight \"{weight}\" {error}")]
    Rounding { weight: String, error: WeightError },
    #[error("the Hessian of {site} {error}")]
    Hessian { site: String, error: HessianError },
    #[error("GPTQ needs the Hessian of {site}, and none was collected")]
    MissingHessian { site: String },
    #[error("the Hessian of {site} is of {actual} channels, where there are {expected}")]
    HessianSize { site: String, expected: usize, actual: usize },
    #[error("the clips of {place} are not positive numbers: {clip:?}")]
    Clip { place: String, clip: Clip },
    #[error("{what} can't be replaced: {reason}")]
    Replacement { what: String, reason: String },
    #[error("group {index} was quantised before, or is none of the {n_groups} groups")]
    NoSuchGroup { index: usize, n_groups: usize },
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
