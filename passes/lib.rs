//! Passes over the graph: canonicalize, transform, quantize, emit, lower.

pub mod autodiff;
pub mod calibrate;
pub mod canonicalize;
pub mod emit;
pub mod inline;
pub mod interpret;
pub mod lower;
pub mod pass;
pub mod pattern;
pub mod quantize;
pub mod rule;
pub mod sites;
pub mod transform;

mod half;
mod parallel;
#[cfg(test)]
mod testing;
mod unread;

pub use pass::{Pass, PassContext, PassError, PassManager, PassReport};
