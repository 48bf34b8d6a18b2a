//! Tests of `Swish`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::grad_testing::{assert_same_bits, assert_slopes};
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

#[test]
fn known_values() {
    let x = Tensor::from_vec(&[3], vec![-2.0f32, 0.0, 2.0]);
    let swish = |x: f32, a: f32| x / (1.0 + (-a * x).exp());
    for alpha in [1.0f32, 0.5] {
        let out = Case::new("", "Swish", 24).with("alpha", alpha).eval(&present(&[&x]));
        let expected = [-2.0, 0.0, 2.0].map(|x| swish(x, alpha)).to_vec();
        assert_close(&out[0], &Tensor::from_vec(&[3], expected), 1e-6);
    }
}

#[test]
fn the_gradient_is_the_slope_and_the_kernel_agrees() {
    let mut random = Random::new(75);
    let (x, dy) = (random.tensor(&[3, 67]), random.tensor(&[3, 67]));
    for alpha in [1.0f32, -0.5, 3.0] {
        let case = Case::new("", "Swish", 24).with("alpha", alpha);
        assert_slopes(&case, &[&x], &dy, &[true], 1e-4);
        let grad = Case::new(DOMAIN, "SwishGrad", 1).with("alpha", alpha);
        grad.assert_kernel_agrees(&present(&[&dy, &x]), &[], 1e-6);
        assert_same_bits(&grad, &[&dy, &x]);
    }
}

#[test]
fn the_function_body_of_the_gradient_agrees() {
    let mut random = Random::new(76);
    let (x, dy) = (random.tensor(&[2, 64]), random.tensor(&[2, 64]));
    let case = || Case::new(DOMAIN, "SwishGrad", 1);
    let questions = [
        Question::new(case(), present(&[&dy, &x])),
        Question::new(case().with("alpha", 1.7f32), present(&[&dy, &x])),
    ];
    assert_agree(&questions, 1e-6);
}
