//! ONNX's text syntax: printing graphs for people and golden tests, and reading them back.

pub mod builder;
pub mod names;

mod unknown;

pub use unknown::{is_unknown_dim, unknown_dim};
