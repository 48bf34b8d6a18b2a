//! Tests of constant.

use planish_ir::{Attribute, Tensor};

use crate::ops::common::testing::*;

fn constant(name: &str, value: impl Into<Attribute>) -> Tensor {
    node("Constant").with(name, value).eval(&[]).remove(0)
}

#[test]
fn every_form_of_a_constant_is_read() {
    assert_eq!(constant("value_int", 7), Tensor::scalar(7i64));
    assert_eq!(constant("value_float", 0.5), Tensor::scalar(0.5f32));
    assert_eq!(constant("value_ints", vec![1, 2]), ints(&[1, 2]).unwrap());
    assert_eq!(constant("value_floats", Attribute::Floats(vec![2.0])).shape(), [1]);
    assert_eq!(constant("value", Tensor::scalar(1u8)), Tensor::scalar(1u8));
    assert_eq!(constant("value_string", "a").strings().unwrap(), ["a"]);
    let strings = Attribute::Strings(vec!["a".into(), "b".into()]);
    assert_eq!(constant("value_strings", strings).shape(), [2]);
    assert!(error(&node("Constant"), &[]).contains("no attribute"));
}

#[test]
fn a_shape_is_filled() {
    let fill = node("ConstantOfShape").with("value", Tensor::from_vec(&[1], vec![3i64]));
    assert_eq!(fill.eval(&[ints(&[2, 2])])[0].to_i64_vec().unwrap(), [3; 4]);
    assert_eq!(fill.eval(&[ints(&[])])[0].shape(), []);
    assert_eq!(fill.eval(&[ints(&[0, 4])])[0].shape(), [0, 4]);
    assert_eq!(node("ConstantOfShape").eval(&[ints(&[1])])[0].to_f32_vec().unwrap(), [0.0]);
    assert!(error(&fill, &[ints(&[-1])]).contains("negative"));
    assert!(error(&fill, &[ints(&[i64::MAX, 4])]).contains("too many"));
    let pair = node("ConstantOfShape").with("value", ints(&[1, 2]).unwrap());
    assert!(error(&pair, &[ints(&[1])]).contains("2 elements"));
}

#[test]
fn a_filled_shape_may_be_symbolic() {
    let fill = node("ConstantOfShape").with("value", Tensor::from_vec(&[1], vec![1i64]));
    assert_eq!(shape(&fill, &[sizes(&["batch", "4"])]), "[batch, 4]");
    assert_eq!(elements(&fill, &[sizes(&["3"])]), "[1, 1, 1]");
}
