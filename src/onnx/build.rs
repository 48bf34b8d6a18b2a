//! Generates the protobuf types from `proto/onnx.proto`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/onnx.proto");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(["proto/onnx.proto"], ["proto"])?;
    prost_build::Config::new()
        // Tensors stay slices of the memory-mapped file.
        .bytes(["."])
        // The comments hold indented text that rustdoc would take for code.
        .disable_comments(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
