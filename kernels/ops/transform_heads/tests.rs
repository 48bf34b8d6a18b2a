//! Tests of `TransformHeads`.

use crate::DOMAIN;
use crate::ops::support::grad_testing::assert_slopes;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case() -> Case {
    Case::new(DOMAIN, "TransformHeads", 1)
}

#[test]
fn each_head_is_a_row_of_a_product() {
    let mut random = Random::new(27);
    let (x, p) = (random.tensor(&[2, 3, 12]), random.tensor(&[4, 4]));
    let out = case().eval(&present(&[&x, &p]));
    let rows = x.reshaped(vec![18, 4]).unwrap();
    let product = Case::new("", "MatMul", 13).eval(&present(&[&rows, &p]));
    assert_close(&out[0].reshaped(vec![18, 4]).unwrap(), &product[0], 0.0);
}

#[test]
fn the_kernel_agrees() {
    let mut random = Random::new(28);
    for rows in [1, 9] {
        let (x, p) = (random.tensor(&[1, rows, 192]), random.tensor(&[64, 64]));
        case().assert_kernel_agrees(&present(&[&x, &p]), &[1], 1e-5);
        case().assert_kernel_agrees(&present(&[&x, &p]), &[], 1e-5);
    }
}

#[test]
fn channels_must_be_whole_heads() {
    assert!(case().infer(&[fact(&["b", "s", "10"]), fact(&["4", "4"])]).is_err());
}

#[test]
fn the_function_body_agrees() {
    let mut random = Random::new(35);
    let inputs = present(&[&random.tensor(&[2, 5, 24]), &random.tensor(&[8, 8])]);
    let questions =
        [Question::new(case(), inputs.clone()), Question::new(case(), inputs).constants(&[1])];
    assert_agree(&questions, 1e-5);
}

#[test]
fn the_gradients_are_the_slopes() {
    let mut random = Random::new(36);
    let (x, p, dy) =
        (random.tensor(&[2, 3, 12]), random.tensor(&[4, 4]), random.tensor(&[2, 3, 12]));
    for wanted in [[true, true], [true, false], [false, true]] {
        assert_slopes(&case(), &[&x, &p], &dy, &wanted, 1e-4);
    }
}
