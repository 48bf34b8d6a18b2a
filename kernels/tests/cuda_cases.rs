//! Every ordinary operator on a device against its reference evaluation, with floats stored as f32
//! and as f16. Without a GPU nothing is compared; with `PLANISH_REQUIRE_GPU` that is a failure.

#[path = "cuda/case.rs"]
mod case;
#[path = "cuda/elementwise.rs"]
mod elementwise;
#[path = "cuda/moving.rs"]
mod moving;
#[path = "cuda/rows.rs"]
mod rows;

use std::collections::BTreeSet;

use planish_kernels::ops;

/// Operators of other areas, which have tests of their own.
const ELSEWHERE: &[&str] = &[
    "BlockQuantizedMatMul",
    "CachedAttention",
    "DynamicQuantize",
    "NegativeLogLikelihood",
    "NormTransformQuantize",
    "QuantizeDequantizeHeads",
    "QuantizedMatMul",
    "QuantizedMatMulAdd",
    "QuantizedMatMulN",
    "RotaryCachedAttention",
    "SwiGLUTransformQuantize",
    "Transform",
    "TransformHeads",
    "TransformLeft",
    "TransformLeftQuantize",
    "TransformQuantize",
    "WeightOnlyMatMul",
];

#[test]
fn no_operator_with_a_cuda_form_is_without_a_case() {
    let with_form = ops::all().filter(|op| op.cuda.is_some()).map(|op| op.name);
    let tested: BTreeSet<&str> = [elementwise::OPERATORS, moving::OPERATORS, rows::OPERATORS]
        .concat()
        .into_iter()
        .chain(ELSEWHERE.iter().copied())
        .collect();
    let missing: Vec<&str> = with_form.filter(|name| !tested.contains(name)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
