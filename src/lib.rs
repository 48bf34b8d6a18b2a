//! Optimises and quantises exported ONNX language models.
pub mod app;
