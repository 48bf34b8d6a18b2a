//! ONNX's operator test cases, as `tests/python/onnx_backend_cases.py` writes them.

pub mod cases;
pub mod compare;
pub mod facts;
