//! Matrix products of few rows, bound by reading the weights: each byte of them is read once, in
//! 16-byte loads of which many are under way, and the first ones before the kernel before has ended.
//!
//! - `few.cu`: up to 8 columns of activations against packed weights; a block has 16 outputs.
//! - `many.cu`: up to 64 columns; K is shared by the blocks of a cluster.
//! - `many_hopper.cu`: the same for codes, by `wgmma`.
//! - `dense_tensor.cu`, `dense_transposed.cu`, `dense.cu`: up to 8 rows against dense weights, of 16
//!   bits in either order, and all others.
//!
//! Sums of integer products are exact; sums of floats are in one order, so results don't change
//! from run to run.

mod bench;
mod dense;
mod launcher;
mod packed;
mod plan;
mod problem;
mod sources;
#[cfg(test)]
mod tests;

pub use bench::bench;
pub use launcher::Gemv;
pub use problem::{DenseGemv, QuantizedGemv, WeightOnlyGemv};
pub use sources::SOURCES;
