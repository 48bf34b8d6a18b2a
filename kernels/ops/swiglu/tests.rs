//! Tests of `SwiGLU`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::grad_testing::{assert_same_bits, assert_slopes};
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

#[test]
fn the_gate_goes_through_silu() {
    let mut random = Random::new(71);
    let (gate, up) = (random.tensor(&[2, 3, 100]), random.tensor(&[2, 3, 100]));
    let silu = Case::new("", "Swish", 24).eval(&present(&[&gate]))[0].to_f32_vec().unwrap();
    let up_values = up.to_f32_vec().unwrap();
    let expected = silu.iter().zip(&up_values).map(|(a, b)| a * b).collect();
    let case = Case::new(DOMAIN, "SwiGLU", 1);
    let inputs = present(&[&gate, &up]);
    assert_close(&case.eval(&inputs)[0], &Tensor::from_vec(&[2, 3, 100], expected), 1e-7);
    case.assert_kernel_agrees(&inputs, &[], 1e-6);
}

#[test]
fn the_gradient_is_the_slope() {
    let mut random = Random::new(72);
    let [gate, up, dy] = [(); 3].map(|()| random.tensor(&[2, 7]));
    let case = Case::new(DOMAIN, "SwiGLU", 1);
    assert_slopes(&case, &[&gate, &up], &dy, &[true, true], 1e-4);
    assert_slopes(&case, &[&gate, &up], &dy, &[false, true], 1e-4);
}

#[test]
fn the_gradient_kernel_agrees() {
    let mut random = Random::new(73);
    let case = Case::new(DOMAIN, "SwiGLUGrad", 1).outputs(2);
    for n in [1, 33, 9_001] {
        let [dy, gate, up] = [(); 3].map(|()| random.tensor(&[1, n]));
        case.assert_kernel_agrees(&present(&[&dy, &gate, &up]), &[], 1e-6);
        assert_same_bits(&case, &[&dy, &gate, &up]);
    }
    let rows = |n| fact(&["b", "s", n]);
    assert!(case.infer(&[rows("8"), rows("8"), rows("8")]).is_ok());
    assert!(case.infer(&[rows("8"), rows("8"), rows("1")]).is_err());
}

#[test]
fn the_function_body_of_the_gradient_agrees() {
    let mut random = Random::new(74);
    let [dy, gate, up] = [(); 3].map(|()| random.tensor(&[2, 3, 64]));
    let case = Case::new(DOMAIN, "SwiGLUGrad", 1).outputs(2);
    assert_agree(&[Question::new(case, present(&[&dy, &gate, &up]))], 1e-6);
}
