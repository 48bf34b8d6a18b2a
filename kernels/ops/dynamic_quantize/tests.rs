//! Tests of `DynamicQuantize`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case(bits: i64) -> Case {
    Case::new(DOMAIN, "DynamicQuantize", 1).with("bits", bits).outputs(2)
}

#[test]
fn a_row_fills_the_range() {
    let x = Tensor::from_vec(&[2, 3], vec![-7.0f32, 3.5, 0.5, 0.0, 0.0, 0.0]);
    let out = case(4).eval(&present(&[&x]));
    // 3.5 and 0.5 lie half-way and go to the even neighbour.
    assert_eq!(out[0].to_i64_vec().unwrap(), [-7, 4, 0, 0, 0, 0]);
    assert_close(&out[1], &Tensor::from_vec(&[2, 1], vec![1.0f32, 1e-8 / 7.0]), 0.0);
}

#[test]
fn clipping_lowers_the_scale() {
    let x = Tensor::from_vec(&[1, 2], vec![-14.0f32, 7.0]);
    let out = case(4).with("clip_min", 0.25f32).eval(&present(&[&x]));
    assert_eq!(out[0].to_i64_vec().unwrap(), [-8, 7]);
    assert_eq!(out[1].to_f32_vec().unwrap(), [1.0]);
}

#[test]
fn the_kernel_gives_the_same_codes() {
    for (bits, shape) in [(4, vec![3, 64]), (8, vec![2, 5, 100]), (8, vec![1, 1, 576])] {
        let x = Random::new(bits as u64).tensor(&shape);
        let case = case(bits).with("clip_max", 0.9f32).with("clip_min", 0.8f32);
        case.assert_kernel_agrees(&present(&[&x]), &[], 0.0);
    }
}

#[test]
fn bits_are_needed() {
    let case = Case::new(DOMAIN, "DynamicQuantize", 1).outputs(2);
    assert!(case.infer(&[fact(&["b", "8"])]).is_err());
}

#[test]
fn the_function_body_gives_the_same_codes() {
    let mut random = Random::new(30);
    let mut question =
        |case: Case, shape: &[usize]| Question::new(case, present(&[&random.tensor(shape)]));
    let clipped = |bits, clip: f32| case(bits).with("clip_min", clip).with("clip_max", 0.9f32);
    let questions = [
        question(clipped(4, 1.0), &[2, 3, 64]),
        question(clipped(8, 1.0), &[2, 3, 64]),
        question(clipped(4, 0.7), &[2, 3, 64]),
        question(case(4), &[5, 7]),
    ];
    assert_agree(&questions, 0.0);
}
