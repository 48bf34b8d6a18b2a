//! CPU primitives on plain slices, with run-time choice of instruction set.
#![allow(dead_code)]

mod attention;
mod elementwise;
mod isa;
mod kv;
mod mat;
mod math;
mod norm;
mod packed;
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

pub use attention::{AttentionSpec, attention};
pub use elementwise::{
    add, add_assign, exp, gelu_erf, gelu_tanh, gelu_tanh_mul, mul, sigmoid, silu, silu_mul, tanh,
};
pub use isa::Isa;
pub use kv::{Clip, KvCache, KvFormat, KvSpec, quantize_dequantize_heads};
pub use mat::{MatMut, MatRef};
pub use norm::{Residual, layer_norm, rms_norm};
pub use packed::{PackError, PackedWeights, WeightLayout, WeightSpec};
pub use pool::ThreadPool;
pub use qgemm::{MAX_K, qgemm, qgemm_i32};
pub use quantize::{AMPLITUDE_FLOOR, QuantSpec, quantize_rows};
pub use rotary::{RotarySpec, rotary, rotary_in_place};
pub use sgemm::sgemm;
pub use softmax::softmax_rows;
pub use transform::{Kronecker, RowSource, transform_quantize, transform_rows};
pub use wgemm::{Precision, wgemm};
