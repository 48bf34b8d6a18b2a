//! Running graphs: engines, KV cache, text generation, evaluation.
pub mod calibrate;
pub mod decoder;
pub mod engine;
pub mod evaluate;
pub mod generate;
pub mod model;
pub mod npz;
pub mod text;

pub use model::{LanguageModel, Logits, LogitsOut, MemoryUse, ModelError};
