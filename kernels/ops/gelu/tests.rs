//! Tests of the GELU operators.

use planish_ir::Tensor;

use crate::ops::support::grad_testing::{assert_same_bits, assert_slopes};
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;
use crate::{DOMAIN, MICROSOFT};

const POINTS: [f32; 5] = [-10.0, -1.0, 0.0, 0.5, 3.0];

fn run(case: &Case) -> Tensor {
    case.eval(&present(&[&Tensor::from_vec(&[5], POINTS.to_vec())])).remove(0)
}

#[test]
fn known_values() {
    let exact = vec![0.0f32, -0.158_655_26, 0.0, 0.345_731_24, 2.995_950_2];
    assert_close(&run(&Case::new("", "Gelu", 20)), &Tensor::from_vec(&[5], exact), 1e-7);
    let tanh = vec![0.0f32, -0.158_808_02, 0.0, 0.345_714_03, 2.996_362_7];
    let tanh = Tensor::from_vec(&[5], tanh);
    assert_close(&run(&Case::new("", "Gelu", 20).with("approximate", "tanh")), &tanh, 1e-6);
    assert_close(&run(&Case::new(MICROSOFT, "FastGelu", 1)), &tanh, 1e-6);
    let quick = POINTS.iter().map(|x| x / (1.0 + (-1.702 * x).exp())).collect();
    let quick = Tensor::from_vec(&[5], quick);
    assert_close(&run(&Case::new(MICROSOFT, "QuickGelu", 1)), &quick, 1e-6);
}

#[test]
fn fast_gelu_adds_its_bias_first() {
    let (x, bias) =
        (Tensor::from_vec(&[1, 2], vec![1.0f32, 2.0]), Tensor::from_vec(&[2], vec![0.5f32, -1.0]));
    let case = Case::new(MICROSOFT, "FastGelu", 1);
    let sum = Tensor::from_vec(&[1, 2], vec![1.5f32, 1.0]);
    assert_close(&case.eval(&present(&[&x, &bias]))[0], &case.eval(&present(&[&sum]))[0], 0.0);
}

#[test]
fn onnx_runtime_agrees() {
    let x = Random::new(44).tensor(&[2, 3, 64]);
    let bias = Random::new(45).tensor(&[64]);
    let questions = [
        Question::new(Case::new("", "Gelu", 20), present(&[&x])),
        Question::new(Case::new("", "Gelu", 20).with("approximate", "tanh"), present(&[&x])),
        Question::new(Case::new(MICROSOFT, "BiasGelu", 1), present(&[&x, &bias])),
        Question::new(Case::new(MICROSOFT, "FastGelu", 1), present(&[&x, &bias])),
        Question::new(Case::new(MICROSOFT, "QuickGelu", 1).with("alpha", 1.5f32), present(&[&x])),
    ];
    assert_agree(&questions, 1e-6);
}

#[test]
fn the_gradients_are_the_slopes() {
    let mut random = Random::new(46);
    let (x, bias, dy) = (random.tensor(&[5, 7]), random.tensor(&[7]), random.tensor(&[5, 7]));
    for domain in ["", MICROSOFT] {
        for form in ["none", "tanh"] {
            let case = Case::new(domain, "Gelu", 20).with("approximate", form);
            assert_slopes(&case, &[&x], &dy, &[true], 1e-4);
        }
    }
    let fast = Case::new(MICROSOFT, "FastGelu", 1);
    assert_slopes(&fast, &[&x], &dy, &[true], 1e-4);
    assert_slopes(&fast, &[&x, &bias], &dy, &[true, true], 1e-4);
    assert_slopes(&Case::new(MICROSOFT, "QuickGelu", 1), &[&x], &dy, &[true], 1e-4);
}

#[test]
fn the_gradient_kernels_agree() {
    let mut random = Random::new(47);
    let (mut x, dy) = (random.tensor(&[9_001]).to_f32_vec().unwrap(), random.tensor(&[9_001]));
    x.iter_mut().for_each(|x| *x *= 6.0);
    let x = Tensor::from_vec(&[9_001], x);
    for form in ["none", "tanh"] {
        let case = Case::new(DOMAIN, "GeluGrad", 1).with("approximate", form);
        case.assert_kernel_agrees(&present(&[&dy, &x]), &[], 1e-6);
        assert_same_bits(&case, &[&dy, &x]);
    }
}
