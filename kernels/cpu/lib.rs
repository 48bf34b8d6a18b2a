//! CPU primitives on plain slices, with run-time choice of instruction set.
//!
//! Every function takes a [`ThreadPool`] and an [`Isa`] first; [`Isa::best`] is the machine's best
//! level, or the one that the environment variable `PLANISH_ISA` names. Matrices are row-major
//! slices, and lengths that disagree are bugs of the caller: they panic.
//!
//! - Integer products: [`PackedWeights`] (4 or 8 bits), [`qgemm`] of int8 codes, and [`wgemm`] of
//!   f32 activations.
//! - f32 products: [`sgemm`] on strided views, [`MatRef`] and [`MatMut`]; [`gemm`] multiplies in
//!   bfloat16 on request.
//! - Activations: [`transform_quantize`], [`transform_rows`] and [`quantize_rows`], with an
//!   RMSNorm or a SwiGLU in front ([`RowSource`]).
//! - Rows: [`rms_norm`], [`layer_norm`], [`softmax_rows`], [`rotary`], and the elementwise
//!   functions.
//! - Attention: [`KvCache`] in f32, 8 or 4 bits, and [`attention`] over it; for training,
//!   [`attention_forward`] over keys and values that are activations, and [`attention_backward`].
//! - Gradients: [`transform_rows_grad`], [`rms_norm_grad`], [`layer_norm_grad`], [`silu_mul_grad`],
//!   [`silu_grad`], [`gelu_erf_grad`] and [`gelu_tanh_grad`]; what they sum over rows has the same
//!   bits for any number of threads.
//! - Quantisation that is read back, and its straight-through gradient: of rows, columns and heads
//!   ([`fake_quantize_rows`] and so on).
//! - The [`inverse`] of a matrix, in f64.
//!
//! Kernels are written once on a small vector trait and compiled for each instruction set; see
//! the private module `simd`. Integer sums are equal in all forms, and f32 results differ by
//! rounding only.

mod activation_grad;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod elementwise;
mod extremes;
mod fake_quantize;
mod gemm;
mod inverse;
mod isa;
mod kv;
mod mat;
mod math;
mod norm;
mod norm_grad;
mod packed;
mod partial_sums;
mod pool;
mod qgemm;
mod quantize;
mod rotary;
mod scratch;
mod sgemm;
mod shared;
mod simd;
mod softmax;
mod transform;
mod wgemm;

pub use activation_grad::{gelu_erf_grad, gelu_tanh_grad, silu_grad, silu_mul_grad};
pub use attention::{
    AttentionGradients, AttentionInputs, AttentionMask, AttentionSpec, DenseAttention, HeadLayout,
    MaskValues, attention, attention_backward, attention_forward,
};
pub use elementwise::{
    add, add_assign, exp, gelu_erf, gelu_tanh, gelu_tanh_mul, mul, sigmoid, silu, silu_mul, tanh,
};
pub use fake_quantize::{
    ColumnClips, ColumnClipsMut, ColumnSpec, fake_quantize_columns, fake_quantize_columns_grad,
    fake_quantize_heads_grad, fake_quantize_rows, fake_quantize_rows_grad,
};
pub use gemm::{ProductPrecision, gemm, multiplies_bf16};
pub use inverse::{Singular, inverse};
pub use isa::Isa;
pub use kv::{Clip, KvCache, KvFormat, KvSpec, quantize_dequantize_heads};
pub use mat::{MatMut, MatRef};
pub use norm::{Residual, layer_norm, rms_norm};
pub use norm_grad::{layer_norm_grad, rms_norm_grad};
pub use packed::{PackError, PackedWeights, WeightLayout, WeightSpec};
pub use pool::ThreadPool;
pub use qgemm::{MAX_K, qgemm, qgemm_i32};
pub use quantize::{AMPLITUDE_FLOOR, QuantSpec, quantize_rows};
pub use rotary::{RotarySpec, rotary, rotary_in_place};
pub use sgemm::sgemm;
pub use softmax::softmax_rows;
pub use transform::{
    Kronecker, RowSource, transform_quantize, transform_rows, transform_rows_grad,
};
pub use wgemm::{Precision, wgemm};
