//! Quantised matrix products of many rows.

use crate::Source;

/// Kernels of this area.
pub static SOURCES: &[&Source] = &[];
