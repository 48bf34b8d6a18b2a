//! Tests of `MatMulInteger`.

use planish_ir::Tensor;

use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case() -> Case {
    Case::new("", "MatMulInteger", 10)
}

#[test]
fn zero_points_are_taken_off() {
    let a = Tensor::from_vec(&[2, 2], vec![1u8, 2, 3, 4]);
    let b = Tensor::from_vec(&[2, 1], vec![5i8, -6]);
    let zero = Tensor::from_vec(&[2], vec![1u8, 0]);
    let out = case().eval(&present(&[&a, &b, &zero]));
    assert_eq!(out[0].to_i64_vec().unwrap(), [-6, -9]);
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(80);
    let (a, b) = (random.codes(&[2, 3, 16], -128, 127), random.codes(&[16, 5], -128, 127));
    let unsigned = Tensor::from_vec(&[3, 16], (0..48).map(|i| (i * 5) as u8).collect());
    let (a_zero, b_zero) = (Tensor::scalar(7u8), Tensor::from_vec(&[5], vec![1i8, -2, 3, -4, 5]));
    let questions = [
        Question::new(case(), present(&[&a, &b])),
        Question::new(case(), present(&[&unsigned, &b, &a_zero, &b_zero])).constants(&[1, 2, 3]),
    ];
    assert_agree(&questions, 0.0);
}
