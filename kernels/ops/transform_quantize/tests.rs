//! Tests of the quantising transforms.

use crate::DOMAIN;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

#[test]
fn it_is_the_transform_and_then_the_quantiser() {
    let mut random = Random::new(20);
    let x = random.tensor(&[2, 3, 24]);
    let (p1, p2) = (random.tensor(&[4, 4]), random.tensor(&[6, 6]));
    for (name, plain, inputs) in [
        ("TransformQuantize", "Transform", vec![&x, &p1, &p2]),
        ("TransformLeftQuantize", "TransformLeft", vec![&x, &p1]),
    ] {
        let case =
            Case::new(DOMAIN, name, 1).with("bits", 4i64).with("clip_max", 0.75f32).outputs(2);
        let out = case.eval(&present(&inputs));
        let y = Case::new(DOMAIN, plain, 1).eval(&present(&inputs));
        let quantise = Case::new(DOMAIN, "DynamicQuantize", 1).with("bits", 4i64);
        let quantise = quantise.with("clip_max", 0.75f32).outputs(2);
        assert_eq!(out, quantise.eval(&present(&[&y[0]])));
    }
}

#[test]
fn the_kernel_gives_the_same_codes() {
    let mut random = Random::new(21);
    let (p1, p2) = (random.tensor(&[8, 8]), random.tensor(&[18, 18]));
    for rows in [1, 7] {
        let x = random.tensor(&[1, rows, 144]);
        for bits in [4i64, 8] {
            let case = Case::new(DOMAIN, "TransformQuantize", 1).with("bits", bits).outputs(2);
            case.assert_kernel_agrees(&present(&[&x, &p1, &p2]), &[1, 2], 1e-5);
            case.assert_kernel_agrees(&present(&[&x, &p1, &p2]), &[], 1e-5);
            let case = Case::new(DOMAIN, "TransformLeftQuantize", 1).with("bits", bits).outputs(2);
            case.assert_kernel_agrees(&present(&[&x, &p1]), &[1], 1e-5);
        }
    }
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    let case = Case::new(DOMAIN, "TransformQuantize", 1).with("bits", 4i64).outputs(2);
    let p = |n: &str| fact(&[n, n]);
    assert!(case.infer(&[fact(&["b", "s", "576"]), p("24"), p("24")]).is_ok());
    assert!(case.infer(&[fact(&["b", "s", "576"]), p("24"), p("25")]).is_err());
}

#[test]
fn the_function_bodies_give_the_same_codes() {
    let mut random = Random::new(31);
    let x = random.tensor(&[2, 9, 144]);
    let (p1, p2) = (random.tensor(&[8, 8]), random.tensor(&[18, 18]));
    let case = |name, bits: i64| {
        let case = Case::new(DOMAIN, name, 1).with("bits", bits).outputs(2);
        case.with("clip_min", 0.9f32).with("clip_max", 0.8f32)
    };
    let both = |bits| Question::new(case("TransformQuantize", bits), present(&[&x, &p1, &p2]));
    let left = |bits| Question::new(case("TransformLeftQuantize", bits), present(&[&x, &p1]));
    let questions = [both(4), both(8).constants(&[1, 2]), left(4).constants(&[1]), left(8)];
    assert_agree(&questions, 1e-5);
}
