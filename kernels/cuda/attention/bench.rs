//! Times of attention.

use crate::{Gpu, GpuError};

/// Decoding and prefill of Llama-3-8B's heads.
///
/// # Errors
/// Those of the kernels.
pub fn bench(_gpu: &Gpu) -> Result<Vec<String>, GpuError> {
    Ok(Vec::new())
}
