//! The list of operators, and how to find one.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::OpDef;

mod identity;
mod attention;
mod gelu;
mod gemm;
mod group_query_attention;
mod layer_normalization;
mod matmul;
mod rms_normalization;
mod rotary_embedding;
mod simplified_layer_normalization;
mod skip_simplified_layer_normalization;
mod softmax;
mod support;
mod swish;

/// Every operator, one line each.
static OPS: &[&[OpDef]] = &[
    identity::OPS,
    attention::OPS,
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
];

static BY_NAME: LazyLock<HashMap<(&'static str, &'static str), &'static OpDef>> =
    LazyLock::new(|| OPS.iter().flat_map(|ops| ops.iter()).map(|op| ((op.domain, op.name), op)).collect());

/// The definition of `op_type` in `domain`, if there is one.
pub fn find(domain: &str, op_type: &str) -> Option<&'static OpDef> {
    BY_NAME.get(&(domain, op_type)).copied()
}

/// All definitions, in the order of the list.
pub fn all() -> impl Iterator<Item = &'static OpDef> {
    OPS.iter().flat_map(|ops| ops.iter())
}
