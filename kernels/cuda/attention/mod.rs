//! Attention over a packed KV cache.

use crate::Source;

/// Kernels of this area.
pub static SOURCES: &[&Source] = &[];
