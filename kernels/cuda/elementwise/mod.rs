//! Element-wise operators, norms, and moving data.

use crate::Source;

/// Kernels of this area.
pub static SOURCES: &[&Source] = &[];
