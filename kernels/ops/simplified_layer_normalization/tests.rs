//! Tests of `SimplifiedLayerNormalization`.

use crate::MICROSOFT;
use crate::ops::support::grad_testing::assert_slopes;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

#[test]
fn it_is_rms_normalisation_in_both_domains() {
    let mut random = Random::new(6);
    let inputs = present(&[&random.tensor(&[2, 3, 8]), &random.tensor(&[8])]);
    let expected = Case::new("", "RMSNormalization", 23).eval(&inputs);
    for domain in ["", MICROSOFT] {
        let out = Case::new(domain, "SimplifiedLayerNormalization", 1).outputs(2).eval(&inputs);
        assert_close(&out[0], &expected[0], 0.0);
        assert_eq!(out[1].shape(), [2, 3, 1]);
    }
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(42);
    let inputs = present(&[&random.tensor(&[2, 3, 64]), &random.tensor(&[64])]);
    let case = Case::new("", "SimplifiedLayerNormalization", 17);
    assert_agree(&[Question::new(case, inputs)], 1e-6);
}

#[test]
fn the_gradient_is_the_slope() {
    let mut random = Random::new(49);
    let (x, scale, dy) = (random.tensor(&[2, 6]), random.tensor(&[6]), random.tensor(&[2, 6]));
    for domain in ["", MICROSOFT] {
        let case = Case::new(domain, "SimplifiedLayerNormalization", 1).with("epsilon", 0.5f32);
        assert_slopes(&case, &[&x, &scale], &dy, &[true, true], 1e-4);
    }
}
