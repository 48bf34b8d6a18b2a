//! Tests of `Transform` and `TransformLeft`.

use planish_ir::Tensor;

use crate::DOMAIN;
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
