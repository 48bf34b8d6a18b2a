//! The list of operators, and how to find one.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::OpDef;

mod add_rms_norm;
mod attention;
mod attention_grad;
mod binary;
mod block_quantized_matmul;
mod cached_attention;
mod cast;
mod clip;
mod common;
mod concat;
mod constant;
pub mod control_flow;
mod cumsum;
mod dynamic_quantize;
mod dynamic_quantize_linear;
mod expand;
mod extremum;
mod fake_quantize_columns;
mod fake_quantize_heads;
mod fake_quantize_rows;
mod fused_matmul;
mod gather;
mod gather_block_quantized;
mod gelu;
mod gemm;
mod group_query_attention;
mod identity;
mod inverse;
mod layer_normalization;
mod linear;
mod matmul;
mod matmul_integer;
mod matmul_nbits;
mod multi_head_attention;
mod negative_log_likelihood;
mod nonzero;
mod norm_transform_quantize;
mod onehot;
mod pad;
mod quantize_dequantize_heads;
mod quantize_linear;
mod quantized_matmul;
mod quantized_matmul_add;
mod quantized_matmul_n;
mod range;
mod reduce;
mod reshape;
mod rms_normalization;
mod rotary_cached_attention;
mod rotary_embedding;
mod scatter;
mod select;
mod shape;
mod simplified_layer_normalization;
mod skip_simplified_layer_normalization;
mod slice;
mod softmax;
mod split;
mod support;
mod swiglu;
mod swiglu_transform_quantize;
mod swish;
mod transform;
mod transform_heads;
mod transform_quantize;
mod transpose;
mod trilu;
mod unary;
mod weight_only_matmul;

/// Every operator, one line each.
static OPS: &[&[OpDef]] = &[
    identity::OPS,
    binary::OPS,
    cast::OPS,
    clip::OPS,
    concat::OPS,
    constant::OPS,
    control_flow::OPS,
    cumsum::OPS,
    expand::OPS,
    extremum::OPS,
    gather::OPS,
    gather_block_quantized::OPS,
    nonzero::OPS,
    onehot::OPS,
    pad::OPS,
    range::OPS,
    reduce::OPS,
    reshape::OPS,
    scatter::OPS,
    select::OPS,
    shape::OPS,
    slice::OPS,
    split::OPS,
    transpose::OPS,
    trilu::OPS,
    unary::OPS,
    attention::OPS,
    attention_grad::OPS,
    gelu::OPS,
    gemm::OPS,
    group_query_attention::OPS,
    layer_normalization::OPS,
    matmul::OPS,
    rms_normalization::OPS,
    rotary_embedding::OPS,
    simplified_layer_normalization::OPS,
    skip_simplified_layer_normalization::OPS,
    softmax::OPS,
    swish::OPS,
    block_quantized_matmul::OPS,
    dynamic_quantize::OPS,
    quantize_dequantize_heads::OPS,
    quantized_matmul::OPS,
    transform::OPS,
    transform_heads::OPS,
    transform_quantize::OPS,
    cached_attention::OPS,
    linear::OPS,
    negative_log_likelihood::OPS,
    weight_only_matmul::OPS,
    add_rms_norm::OPS,
    norm_transform_quantize::OPS,
    quantized_matmul_add::OPS,
    quantized_matmul_n::OPS,
    rotary_cached_attention::OPS,
    swiglu::OPS,
    swiglu_transform_quantize::OPS,
    fake_quantize_rows::OPS,
    fake_quantize_columns::OPS,
    fake_quantize_heads::OPS,
    inverse::OPS,
    dynamic_quantize_linear::OPS,
    fused_matmul::OPS,
    matmul_integer::OPS,
    matmul_nbits::OPS,
    multi_head_attention::OPS,
    quantize_linear::OPS,
];

static BY_NAME: LazyLock<HashMap<(&'static str, &'static str), &'static OpDef>> =
    LazyLock::new(|| {
        OPS.iter().flat_map(|ops| ops.iter()).map(|op| ((op.domain, op.name), op)).collect()
    });

/// The definition of `op_type` in `domain`, if there is one.
pub fn find(domain: &str, op_type: &str) -> Option<&'static OpDef> {
    BY_NAME.get(&(domain, op_type)).copied()
}

/// All definitions, in the order of the list.
pub fn all() -> impl Iterator<Item = &'static OpDef> {
    OPS.iter().flat_map(|ops| ops.iter())
}
