//! Tests of `Softmax` and `LogSoftmax`.

use planish_ir::Tensor;

use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn x() -> Tensor {
    Tensor::from_vec(&[2, 2, 1], vec![0.0f32, 3f32.ln(), 1000.0, 1000.0])
}

#[test]
fn one_axis_from_opset_13_on() {
    let out = Case::new("", "Softmax", 13).with("axis", 1i64).eval(&present(&[&x()]));
    assert_close(&out[0], &Tensor::from_vec(&[2, 2, 1], vec![0.25f32, 0.75, 0.5, 0.5]), 1e-6);
    let out = Case::new("", "Softmax", 13).eval(&present(&[&x()]));
    assert_close(&out[0], &Tensor::from_vec(&[2, 2, 1], vec![1.0f32; 4]), 0.0);
    let x = Tensor::from_vec(&[2, 2], vec![0.0f32, 1000.0, 3f32.ln(), 1000.0]);
    let out = Case::new("", "Softmax", 13).with("axis", 0i64).eval(&present(&[&x]));
    assert_close(&out[0], &Tensor::from_vec(&[2, 2], vec![0.25f32, 0.5, 0.75, 0.5]), 1e-6);
}

#[test]
fn all_axes_from_axis_on_before() {
    let out = Case::new("", "Softmax", 11).eval(&present(&[&x()]));
    assert_close(&out[0], &Tensor::from_vec(&[2, 2, 1], vec![0.25f32, 0.75, 0.5, 0.5]), 1e-6);
}

#[test]
fn log_softmax_is_the_logarithm() {
    let x = Random::new(3).tensor(&[3, 5]);
    let log = Case::new("", "LogSoftmax", 13).eval(&present(&[&x]));
    let soft = Case::new("", "Softmax", 13).eval(&present(&[&x]));
    let expected = soft[0].to_f32_vec().unwrap().iter().map(|v| v.ln()).collect();
    assert_close(&log[0], &Tensor::from_vec(&[3, 5], expected), 1e-6);
}

#[test]
fn an_axis_outside_is_refused() {
    let case = Case::new("", "Softmax", 13).with("axis", 2i64);
    assert!(case.infer(&[fact(&["a", "b"])]).is_err());
}

#[test]
fn onnx_runtime_agrees() {
    let x = Random::new(46).tensor(&[2, 3, 10]);
    let mut questions = Vec::new();
    for (opset, axis) in [(11, 1i64), (11, 2), (13, 0), (13, 1), (13, -1)] {
        for name in ["Softmax", "LogSoftmax"] {
            let case = Case::new("", name, opset).with("axis", axis);
            questions.push(Question::new(case, present(&[&x])));
        }
    }
    assert_agree(&questions, 1e-6);
}
