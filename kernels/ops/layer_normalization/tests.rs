//! Tests of `LayerNormalization`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::grad_testing::{assert_same_bits, assert_slopes};
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

#[test]
fn mean_and_deviation_are_given() {
    let x = Tensor::from_vec(&[2, 2], vec![1.0f32, 3.0, -4.0, 4.0]);
    let scale = Tensor::from_vec(&[2], vec![1.0f32, 2.0]);
    let bias = Tensor::from_vec(&[2], vec![0.5f32, 0.0]);
    let case = Case::new("", "LayerNormalization", 17).with("epsilon", 0.0f32).outputs(3);
    let out = case.eval(&present(&[&x, &scale, &bias]));
    assert_close(&out[0], &Tensor::from_vec(&[2, 2], vec![-0.5f32, 2.0, -0.5, 2.0]), 1e-6);
    assert_close(&out[1], &Tensor::from_vec(&[2, 1], vec![2.0f32, 0.0]), 1e-6);
    assert_close(&out[2], &Tensor::from_vec(&[2, 1], vec![1.0f32, 0.25]), 1e-6);
}

#[test]
fn bias_and_statistics_are_optional() {
    let mut random = Random::new(2);
    let (x, scale) = (random.tensor(&[2, 3, 4]), random.tensor(&[3, 4]));
    let case = Case::new("", "LayerNormalization", 17).with("axis", -2i64);
    let out = case.eval(&present(&[&x, &scale]));
    assert_eq!(out.len(), 1);
    let plain = Case::new("", "LayerNormalization", 17);
    let flat = |t: &Tensor, shape: &[usize]| t.reshaped(shape.to_vec()).unwrap();
    let expected = plain.eval(&present(&[&flat(&x, &[2, 12]), &flat(&scale, &[12])]));
    assert_close(&flat(&out[0], &[2, 12]), &expected[0], 0.0);
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(41);
    let (x, scale, bias) = (random.tensor(&[2, 3, 64]), random.tensor(&[64]), random.tensor(&[64]));
    let case = || Case::new("", "LayerNormalization", 17);
    let questions = [
        Question::new(case().outputs(3), present(&[&x, &scale, &bias])),
        Question::new(case().with("epsilon", 0.1f32), present(&[&x, &scale, &bias]))
            .constants(&[1, 2]),
        Question::new(case(), present(&[&x, &scale])),
    ];
    assert_agree(&questions, 1e-6);
}

fn grad_case() -> Case {
    Case::new(DOMAIN, "LayerNormalizationGrad", 1).outputs(3)
}

#[test]
fn the_gradient_is_the_slope() {
    let mut random = Random::new(46);
    let (x, dy) = (random.tensor(&[2, 3, 5]), random.tensor(&[2, 3, 5]));
    let (scale, bias, wide) = (random.tensor(&[5]), random.tensor(&[5]), random.tensor(&[3, 5]));
    let case = || Case::new("", "LayerNormalization", 17).with("epsilon", 0.5f32);
    assert_slopes(&case(), &[&x, &scale, &bias], &dy, &[true, true, true], 1e-4);
    assert_slopes(&case(), &[&x, &scale, &bias], &dy, &[true, false, false], 1e-4);
    assert_slopes(&case(), &[&x, &scale], &dy, &[true, true], 1e-4);
    assert_slopes(&case().with("axis", 1i64), &[&x, &wide], &dy, &[true, true], 1e-4);
}

#[test]
fn the_gradient_kernel_agrees() {
    let mut random = Random::new(47);
    for (rows, n) in [(1, 1), (3, 7), (9, 577), (131, 64)] {
        let (x, dy) = (random.tensor(&[2, rows, n]), random.tensor(&[2, rows, n]));
        let scale = random.tensor(&[n]);
        grad_case().assert_kernel_agrees(&present(&[&dy, &x, &scale]), &[], 1e-5);
        assert_same_bits(&grad_case(), &[&dy, &x, &scale]);
    }
}

#[test]
fn the_function_body_of_the_gradient_agrees() {
    let mut random = Random::new(48);
    let (x, dy) = (random.tensor(&[2, 3, 64]), random.tensor(&[2, 3, 64]));
    let (scale, wide) = (random.tensor(&[64]), random.tensor(&[3, 64]));
    let questions = [
        Question::new(grad_case(), present(&[&dy, &x, &scale])).constants(&[2]),
        Question::new(grad_case().with("axis", -2i64), present(&[&dy, &x, &wide])),
    ];
    assert_agree(&questions, 1e-5);
}
