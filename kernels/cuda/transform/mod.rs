//! Transforms and quantisation of activations.

use crate::Source;

/// Kernels of this area.
pub static SOURCES: &[&Source] = &[];
