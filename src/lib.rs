//! Optimises and quantises exported ONNX language models.
