//! Quantised matrix products of many rows.
//!
//! All kernels compute the product transposed, D = W·Xᵀ, as packed weights lie in memory the way
//! tensor cores want their operand A. [`Gemm`] picks the kernel: on Hopper `wgmma` with weights
//! unpacked in registers; elsewhere `mma.sync` on 8-bit integers, or on 4-bit ones where the card
//! has them and both operands are INT4.

mod bench;
mod launcher;
mod problem;
mod sources;
mod tensor_map;
#[cfg(test)]
mod tests;
mod wgmma;

pub use bench::bench;
pub use launcher::{Gemm, Route, suits_rows};
pub use problem::{QuantizedGemm, WeightOnlyGemm};
pub use sources::SOURCES;
pub use wgmma::Tiling;
