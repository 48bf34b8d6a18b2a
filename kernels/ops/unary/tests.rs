//! Tests of unary.

use planish_ir::Tensor;

use super::erf::erf;
use crate::ops::common::testing::*;
use crate::ops::support::testing::{Random, fact, present};

#[test]
fn fast_forms_agree() {
    let x = Random::new(3).tensor(&[3, 50]);
    let positive: Vec<f32> = x.to_f32_vec().unwrap().iter().map(|x| x.abs() + 0.1).collect();
    let inputs = [tensor(&[3, 50], &positive)];
    for op in ["Sqrt", "Reciprocal", "Log"] {
        node(op).assert_kernel_agrees(&inputs, &[], 1e-6);
    }
    for op in ["Neg", "Abs", "Exp", "Erf", "Tanh", "Sigmoid", "Relu", "Cos", "Sin", "IsNaN"] {
        node(op).assert_kernel_agrees(&present(&[&x]), &[], 2e-6);
    }
    node("LeakyRelu").with("alpha", 0.2f32).assert_kernel_agrees(&present(&[&x]), &[], 1e-6);
}

#[test]
fn halves_are_rounded_to_even() {
    let x = [tensor(&[4], &[0.5f32, 1.5, -2.5, 2.4])];
    assert_eq!(both(&node("Round"), &x).to_f32_vec().unwrap(), [0.0, 2.0, -2.0, 2.0]);
}

#[test]
fn the_error_function_is_that_of_the_tables() {
    // Abramowitz and Stegun, table 7.1.
    for (x, y) in [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)] {
        assert!((erf(x) - y).abs() < 1e-10 && erf(-x) == -erf(x), "{x}");
    }
    assert_eq!((erf(0.0), erf(f64::INFINITY)), (0.0, 1.0));
    assert!(erf(f64::NAN).is_nan());
}

#[test]
fn infinities_are_told_apart() {
    let x = [tensor(&[3], &[f32::INFINITY, f32::NEG_INFINITY, 1.0])];
    assert_eq!(both(&node("IsInf"), &x).to_i64_vec().unwrap(), [1, 1, 0]);
    let positive = node("IsInf").with("detect_negative", 0);
    assert_eq!(both(&positive, &x).to_i64_vec().unwrap(), [1, 0, 0]);
}

#[test]
fn integers_and_bools_have_some() {
    assert_eq!(both(&node("Neg"), &[ints(&[3, -4])]).to_i64_vec().unwrap(), [-3, 4]);
    let bools = [Some(Tensor::from_bools(&[2], &[true, false]))];
    assert_eq!(both(&node("Not"), &bools).to_i64_vec().unwrap(), [0, 1]);
    assert_eq!(both(&node("BitwiseNot"), &[tensor(&[1], &[5u8])]).to_i64_vec().unwrap(), [250]);
    assert!(error(&node("Exp"), &[ints(&[1])]).contains("does not take elements of type int64"));
    assert!(error(&node("Exp"), &[]).contains("input 0 is absent"));
}

#[test]
fn shapes_and_sizes_are_kept() {
    assert_eq!(shape(&node("Cos"), &[fact(&["batch", "seq"])]), "[batch, seq]");
    assert_eq!(elements(&node("Neg"), &[sizes(&["seq", "2"])]), "[-seq, -2]");
    assert_eq!(inferred(&node("Sign"), &[sizes(&["seq"])]).dims, None);
}

#[test]
fn what_is_no_number_stays_visible() {
    let x = [tensor(&[40], &[f32::NAN; 40])];
    for op in ["Exp", "Sigmoid", "Tanh", "Relu", "Sqrt"] {
        let y = node(op).run_cpu(&x, &[]).remove(0);
        assert!(y.to_f32_vec().unwrap().iter().all(|y| y.is_nan()), "{op}");
    }
    let large = [tensor(&[2], &[100f32, -200.0])];
    assert_eq!(node("Exp").run_cpu(&large, &[])[0].to_f32_vec().unwrap(), [f32::INFINITY, 0.0]);
}
