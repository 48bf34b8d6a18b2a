//! Element-wise operators, norms, reductions, moving data, and plain products and attention: what
//! graphs contain between the kernels of the other areas. Launchers take pointers and sizes; they
//! know nothing of nodes.

mod adamw;
mod binary;
mod cast;
mod copy;
mod fake_quantize;
mod gather;
mod grads;
mod inverse;
mod kronecker;
mod kronecker_bench;
mod kronecker_rows;
mod likelihood;
mod norm;
mod number;
mod product;
mod range;
mod reduce;
mod rotary;
mod scan;
mod scores;
mod select;
mod softmax;
mod unary;
mod walk;

pub mod bench;
#[cfg(test)]
mod kronecker_tests;
#[cfg(test)]
mod tests;

pub use adamw::{AdamW, AdamWConstants, Moved};
pub use binary::{Binary, binary};
pub use cast::cast;
pub use copy::{PadMode, copy, pad, trilu};
pub use fake_quantize::{FakeQuantize, FakeQuantizeGrad};
pub use gather::{
    GatherSizes, Indices, Reduction, Tuples, gather, gather_elements, gather_nd, one_hot,
    scatter_elements, scatter_nd,
};
pub use grads::{NormGrad, Slope, activation_grad, softmax_grad, swiglu_grad};
pub use inverse::inverse;
pub use kronecker::Kronecker;
pub use kronecker_rows::KroneckerRows;
pub use likelihood::negative_log_likelihood;
pub use norm::Norm;
pub use number::Number;
pub use product::{Product, ProductKernel};
pub use range::{Steps, range};
pub use reduce::{Reduce, reduce};
pub use rotary::{Positions, Rotary};
pub use scan::{arg, argmax, running_sums, top_k};
pub use scores::{Heads, Mask, Scores};
pub use select::select;
pub use softmax::softmax;
pub use unary::{Unary, clip, unary};
pub use walk::Walk;

use crate::Source;

/// Kernels of this area.
pub static SOURCES: &[&Source] = &[
    &adamw::ADAMW,
    &binary::BINARY,
    &cast::CAST,
    &copy::COPY,
    &fake_quantize::FAKE_QUANTIZE,
    &gather::GATHER,
    &gather::SCATTER,
    &grads::GRADS,
    &inverse::INVERSE,
    &kronecker::KRONECKER,
    &kronecker_rows::GRADS,
    &kronecker_rows::ROWS,
    &likelihood::LIKELIHOOD,
    &norm::NORM,
    &product::PRODUCT,
    &range::RANGE,
    &reduce::REDUCE,
    &rotary::ROTARY,
    &scan::SCAN,
    &scores::SCORES,
    &select::SELECT,
    &softmax::SOFTMAX,
    &unary::UNARY,
];
