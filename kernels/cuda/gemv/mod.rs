//! Matrix products of few rows, bound by reading the weights.

use crate::Source;

/// Kernels of this area.
pub static SOURCES: &[&Source] = &[];
