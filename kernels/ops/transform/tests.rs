//! Tests of `Transform` and `TransformLeft`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::grad_testing::{assert_same_bits, assert_slopes};
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

#[test]
fn a_hand_made_case() {
    // X̃ = [1 2 3; 4 5 6], P1 = [1 1; 0 1], P2 swaps columns 0 and 2.
    let x = Tensor::from_vec(&[1, 6], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let p1 = Tensor::from_vec(&[2, 2], vec![1.0f32, 1.0, 0.0, 1.0]);
    let p2 = Tensor::from_vec(&[3, 3], vec![0.0f32, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    let both = Case::new(DOMAIN, "Transform", 1).eval(&present(&[&x, &p1, &p2]));
    assert_eq!(both[0].to_f32_vec().unwrap(), [3.0, 2.0, 1.0, 9.0, 7.0, 5.0]);
    let left = Case::new(DOMAIN, "TransformLeft", 1).eval(&present(&[&x, &p1]));
    assert_eq!(left[0].to_f32_vec().unwrap(), [1.0, 2.0, 3.0, 5.0, 7.0, 9.0]);
}

#[test]
fn a_row_times_the_kronecker_product() {
    let mut random = Random::new(22);
    let x = random.tensor(&[3, 12]);
    let (p1, p2) = (random.tensor(&[3, 3]), random.tensor(&[4, 4]));
    let (a, b) = (p1.to_f32_vec().unwrap(), p2.to_f32_vec().unwrap());
    let cell = |i: usize| {
        let (row, col) = (i / 12, i % 12);
        a[row / 4 * 3 + col / 4] * b[row % 4 * 4 + col % 4]
    };
    let product = Tensor::from_vec(&[12, 12], (0..144).map(cell).collect());
    let expected = Case::new("", "MatMul", 13).eval(&present(&[&x, &product]));
    let out = Case::new(DOMAIN, "Transform", 1).eval(&present(&[&x, &p1, &p2]));
    assert_close(&out[0], &expected[0], 1e-6);
}

#[test]
fn the_kernel_agrees() {
    let mut random = Random::new(23);
    let (p1, p2) = (random.tensor(&[9, 9]), random.tensor(&[16, 16]));
    for rows in [1, 5] {
        let x = random.tensor(&[2, rows, 144]);
        let case = Case::new(DOMAIN, "Transform", 1);
        case.assert_kernel_agrees(&present(&[&x, &p1, &p2]), &[1, 2], 1e-5);
        let case = Case::new(DOMAIN, "TransformLeft", 1);
        case.assert_kernel_agrees(&present(&[&x, &p1]), &[], 1e-5);
    }
}

#[test]
fn the_function_bodies_agree() {
    let mut random = Random::new(32);
    let (x, p1, p2) = (random.tensor(&[2, 3, 24]), random.tensor(&[4, 4]), random.tensor(&[6, 6]));
    let questions = [
        Question::new(Case::new(DOMAIN, "Transform", 1), present(&[&x, &p1, &p2])),
        Question::new(Case::new(DOMAIN, "TransformLeft", 1), present(&[&x, &p1])).constants(&[1]),
    ];
    assert_agree(&questions, 1e-5);
}

#[test]
fn the_gradients_are_the_slopes() {
    let mut random = Random::new(33);
    let (x, dy) = (random.tensor(&[2, 2, 12]), random.tensor(&[2, 2, 12]));
    let (p1, p2) = (random.tensor(&[3, 3]), random.tensor(&[4, 4]));
    let (both, left) = (Case::new(DOMAIN, "Transform", 1), Case::new(DOMAIN, "TransformLeft", 1));
    for wanted in [[true, true, true], [false, true, false], [false, false, true]] {
        assert_slopes(&both, &[&x, &p1, &p2], &dy, &wanted, 1e-4);
    }
    assert_slopes(&both, &[&x, &p1, &p2], &dy, &[true, false, false], 1e-4);
    assert_slopes(&left, &[&x, &p1], &dy, &[true, true], 1e-4);
    assert_slopes(&left, &[&x, &p1], &dy, &[true, false], 1e-4);
}

#[test]
fn the_gradient_kernels_agree() {
    let mut random = Random::new(34);
    for (rows, n1, n2) in [(1, 1, 1), (5, 9, 16), (70, 5, 7), (3, 24, 24)] {
        let (x, dy) = (random.tensor(&[2, rows, n1 * n2]), random.tensor(&[2, rows, n1 * n2]));
        let (p1, p2) = (random.tensor(&[n1, n1]), random.tensor(&[n2, n2]));
        let both = Case::new(DOMAIN, "TransformGrad", 1).outputs(3);
        both.assert_kernel_agrees(&present(&[&dy, &x, &p1, &p2]), &[], 1e-5);
        both.assert_kernel_agrees(&present(&[&dy, &x, &p1, &p2]), &[2, 3], 1e-5);
        assert_same_bits(&both, &[&dy, &x, &p1, &p2]);
        let left = Case::new(DOMAIN, "TransformLeftGrad", 1).outputs(2);
        left.assert_kernel_agrees(&present(&[&dy, &x, &p1]), &[], 1e-5);
        assert_same_bits(&left, &[&dy, &x, &p1]);
    }
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    let case = Case::new(DOMAIN, "TransformGrad", 1).outputs(3);
    let (rows, p) = (|| fact(&["b", "s", "576"]), |n: &str| fact(&[n, n]));
    assert!(case.infer(&[rows(), rows(), p("24"), p("24")]).is_ok());
    assert!(case.infer(&[rows(), rows(), p("24"), p("25")]).is_err());
    assert!(case.infer(&[fact(&["b", "s", "24"]), rows(), p("24"), p("24")]).is_err());
}

#[test]
fn the_function_bodies_of_the_gradients_agree() {
    let mut random = Random::new(35);
    let (x, dy) = (random.tensor(&[2, 3, 24]), random.tensor(&[2, 3, 24]));
    let (p1, p2) = (random.tensor(&[4, 4]), random.tensor(&[6, 6]));
    let both = Case::new(DOMAIN, "TransformGrad", 1).outputs(3);
    let left = Case::new(DOMAIN, "TransformLeftGrad", 1).outputs(2);
    let questions = [
        Question::new(both, present(&[&dy, &x, &p1, &p2])),
        Question::new(left, present(&[&dy, &x, &p1])).constants(&[2]),
    ];
    assert_agree(&questions, 1e-5);
}
