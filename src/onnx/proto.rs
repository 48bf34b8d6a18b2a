//! The protobuf types of ONNX, generated from `proto/onnx.proto`.
//!
//! They are public so that tests can build files that no writer of ours would write; the rest of
//! planish works on [`planish_ir::Model`].

#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
