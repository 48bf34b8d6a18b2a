//! Passes over the graph: canonicalize, quantize, lower.

pub mod canonicalize;
pub mod interpret;
pub mod pass;
pub mod pattern;
pub mod quantize;
pub mod rule;

pub use pass::{Pass, PassContext, PassError, PassManager, PassReport};
