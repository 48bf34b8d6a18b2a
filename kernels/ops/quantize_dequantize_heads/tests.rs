//! Tests of `QuantizeDequantizeHeads`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case(bits: i64, head_size: i64) -> Case {
    let case = Case::new(DOMAIN, "QuantizeDequantizeHeads", 1);
    case.with("bits", bits).with("head_size", head_size)
}

#[test]
fn each_head_has_its_own_grid() {
    // The first head spans 0..15 and is kept, the second spans −30..0 in steps of 2.
    let x = Tensor::from_vec(&[1, 1, 6], vec![0.0f32, 7.0, 15.0, -30.0, -7.0, 0.0]);
    let out = case(4, 3).eval(&present(&[&x]));
    assert_eq!(out[0].to_f32_vec().unwrap(), [0.0, 7.0, 15.0, -30.0, -8.0, 0.0]);
}

#[test]
fn clipping_cuts_the_extremes() {
    let x = Tensor::from_vec(&[1, 1, 3], vec![0.0f32, 15.0, 60.0]);
    let out = case(4, 3).with("clip_max", 0.25f32).eval(&present(&[&x]));
    assert_eq!(out[0].to_f32_vec().unwrap(), [0.0, 15.0, 15.0]);
}

#[test]
fn the_kernel_agrees() {
    let mut random = Random::new(29);
    for bits in [4, 8] {
        let x = random.tensor(&[2, 3, 192]);
        let case = case(bits, 64).with("clip_min", 0.9f32).with("clip_max", 0.8f32);
        case.assert_kernel_agrees(&present(&[&x]), &[], 1e-6);
    }
}

#[test]
fn the_function_body_agrees() {
    let mut random = Random::new(36);
    let mut question = |bits, clip: f32| {
        let case = case(bits, 32).with("clip_min", clip).with("clip_max", 0.95f32);
        Question::new(case, present(&[&random.tensor(&[2, 5, 96])]))
    };
    assert_agree(&[question(4, 1.0), question(8, 1.0), question(4, 0.6)], 1e-6);
}
