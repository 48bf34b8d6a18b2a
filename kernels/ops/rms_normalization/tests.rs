//! Tests of `RMSNormalization`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::grad_testing::{assert_same_bits, assert_slopes};
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

#[test]
fn a_row_is_divided_by_its_root_mean_square() {
    let x = Tensor::from_vec(&[1, 2, 2], vec![3.0f32, 4.0, 0.0, 2.0]);
    let scale = Tensor::from_vec(&[2], vec![1.0f32, 10.0]);
    let case = Case::new("", "RMSNormalization", 23).with("epsilon", 0.0f32);
    let rms = 12.5f32.sqrt();
    let expected = vec![3.0 / rms, 40.0 / rms, 0.0, 20.0 / 2f32.sqrt()];
    assert_close(
        &case.eval(&present(&[&x, &scale]))[0],
        &Tensor::from_vec(&[1, 2, 2], expected),
        1e-6,
    );
}

#[test]
fn several_axes_are_normalised_together() {
    let mut random = Random::new(1);
    let (x, scale) = (random.tensor(&[2, 3, 4]), random.tensor(&[3, 4]));
    let case = Case::new("", "RMSNormalization", 23).with("axis", 1i64);
    let flat = Case::new("", "RMSNormalization", 23);
    let together = case.eval(&present(&[&x, &scale]));
    let x = x.reshaped(vec![2, 12]).unwrap();
    let scale = scale.reshaped(vec![12]).unwrap();
    let expected = flat.eval(&present(&[&x, &scale]));
    assert_close(&together[0].reshaped(vec![2, 12]).unwrap(), &expected[0], 0.0);
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(40);
    let (x, scale, wide) =
        (random.tensor(&[2, 3, 64]), random.tensor(&[64]), random.tensor(&[3, 64]));
    let case = || Case::new("", "RMSNormalization", 23);
    let questions = [
        Question::new(case(), present(&[&x, &scale])).constants(&[1]),
        Question::new(case().with("epsilon", 0.1f32), present(&[&x, &scale])),
        Question::new(case().with("axis", 1i64), present(&[&x, &wide])),
    ];
    assert_agree(&questions, 1e-6);
}

fn grad_case() -> Case {
    Case::new(DOMAIN, "RMSNormalizationGrad", 1).outputs(2)
}

#[test]
fn the_gradient_is_the_slope() {
    let mut random = Random::new(43);
    let (x, scale, wide) = (random.tensor(&[2, 3, 5]), random.tensor(&[5]), random.tensor(&[3, 5]));
    let dy = random.tensor(&[2, 3, 5]);
    let case = || Case::new("", "RMSNormalization", 23).with("epsilon", 0.5f32);
    assert_slopes(&case(), &[&x, &scale], &dy, &[true, true], 1e-4);
    assert_slopes(&case(), &[&x, &scale], &dy, &[true, false], 1e-4);
    assert_slopes(&case().with("axis", 1i64), &[&x, &wide], &dy, &[true, true], 1e-4);
}

#[test]
fn the_gradient_kernel_agrees() {
    let mut random = Random::new(44);
    for (rows, n) in [(1, 1), (3, 7), (9, 577), (131, 64)] {
        let (x, dy) = (random.tensor(&[2, rows, n]), random.tensor(&[2, rows, n]));
        let scale = random.tensor(&[n]);
        grad_case().assert_kernel_agrees(&present(&[&dy, &x, &scale]), &[], 1e-5);
        assert_same_bits(&grad_case(), &[&dy, &x, &scale]);
    }
    let (x, dy, scale) =
        (random.tensor(&[4, 3, 5]), random.tensor(&[4, 3, 5]), random.tensor(&[3, 5]));
    let case = grad_case().with("axis", 1i64).with("epsilon", 0.1f32);
    case.assert_kernel_agrees(&present(&[&dy, &x, &scale]), &[2], 1e-5);
}

#[test]
fn a_scale_of_another_size_is_refused() {
    let rows = || fact(&["b", "s", "8"]);
    assert!(grad_case().infer(&[rows(), rows(), fact(&["8"])]).is_ok());
    assert!(grad_case().infer(&[rows(), rows(), fact(&["1"])]).is_err());
}

#[test]
fn the_function_body_of_the_gradient_agrees() {
    let mut random = Random::new(45);
    let (x, dy) = (random.tensor(&[2, 3, 64]), random.tensor(&[2, 3, 64]));
    let (scale, wide) = (random.tensor(&[64]), random.tensor(&[3, 64]));
    let questions = [
        Question::new(grad_case(), present(&[&dy, &x, &scale])).constants(&[2]),
        Question::new(grad_case().with("axis", 1i64), present(&[&dy, &x, &wide])),
        Question::new(grad_case().with("epsilon", 0.1f32), present(&[&dy, &x, &scale])),
    ];
    assert_agree(&questions, 1e-5);
}
