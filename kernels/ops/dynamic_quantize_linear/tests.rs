//! Tests of `DynamicQuantizeLinear`.

use planish_ir::Tensor;

use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case() -> Case {
    Case::new("", "DynamicQuantizeLinear", 11).outputs(3)
}

#[test]
fn the_range_holds_zero() {
    let x = Tensor::from_vec(&[3], vec![51.0f32, 102.0, 255.0]);
    let out = case().eval(&present(&[&x]));
    assert_eq!(out[0].to_i64_vec().unwrap(), [51, 102, 255]);
    assert_eq!(out[2].to_i64_vec().unwrap(), [0]);
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(82);
    let questions = [
        Question::new(case(), present(&[&random.tensor(&[3, 40])])),
        Question::new(case(), present(&[&Tensor::from_vec(&[4], vec![0.0f32; 4])])),
    ];
    assert_agree(&questions, 1e-6);
}
