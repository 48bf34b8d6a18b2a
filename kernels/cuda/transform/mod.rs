//! FlatQuant's online transforms and the dynamic quantiser of activations (arXiv 2410.09426), with
//! what comes in front of them: a residual addition and RMS normalisation, or SwiGLU.
//!
//! One call serves `DynamicQuantize`, `TransformQuantize`, `TransformLeftQuantize`, `Transform`,
//! `TransformLeft`, `NormTransformQuantize` and `SwiGLUTransformQuantize`; heads have kernels of
//! their own ([`TransformHeads`], [`QuantizeDequantizeHeads`]).
//!
//! - `tensor.cu`: many rows, on tensor cores; a group of warps makes a row.
//! - `block.cu`, `cluster.cu`: few rows, where latency is all; a block makes a short row, a cluster of blocks a long one.
//! - `rowwise.cu`: rows without factors.
//! - `reference.cu`: every size and type, plainly.
//! - `heads.cu`: matrices on heads. `pack.cu`: factors in the order of tensor cores.

mod bench;
mod defines;
mod factors;
mod heads;
mod method;
mod rows;
mod sources;
#[cfg(test)]
mod tests;

pub use bench::bench;
pub use factors::{Factors, PackedFactors};
pub use heads::{QuantizeDequantizeHeads, TransformHeads};
pub use method::Method;
pub use rows::{Output, RowSource, TransformRows};
pub use sources::SOURCES;
