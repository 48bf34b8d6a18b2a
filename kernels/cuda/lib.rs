//! What runs on an NVIDIA GPU: a thin device layer (memory, kernels compiled by NVRTC at first use
//! and kept on disk, launches, captured graphs), and the kernels, one folder an area.
//!
//! Nothing is linked: driver, NVRTC and cuBLAS are loaded when a [`Gpu`] is opened, so one binary
//! runs with and without a GPU. Kernels include no header of the CUDA toolkit.

pub mod attention;
pub mod cublas;
pub mod elementwise;
pub mod gemm;
pub mod gemv;
pub mod testing;
pub mod timer;
pub mod transform;

mod args;
mod cache;
mod element;
mod error;
mod gpu;
mod graph;
mod launch;
mod memory;
mod nvrtc;
mod outputs;
mod source;
mod turns;
mod weave;
mod weights;

#[cfg(test)]
mod tests;

pub use args::Args;
pub use element::Element;
pub use error::GpuError;
pub use gpu::{Gpu, Properties, count, is_present};
pub use graph::CapturedGraph;
pub use launch::{Function, Launch};
pub use memory::{DeviceBuffer, DevicePtr, MemoryPool};
pub use nvrtc::{compile, nvrtc_is_present};
pub use outputs::MoreOutput;
pub use source::{Archs, Source};
pub use weights::{PackedWeights, WeightOrder};

/// Every source, for checks that all of them compile.
pub fn sources() -> impl Iterator<Item = &'static Source> {
    [attention::SOURCES, elementwise::SOURCES, gemm::SOURCES, gemv::SOURCES, transform::SOURCES]
        .into_iter()
        .flatten()
        .copied()
}
