//! Tests of clip.

use planish_ir::Tensor;

use crate::ops::common::testing::*;
use crate::ops::support::testing::{Case, fact};

#[test]
fn bounds_may_be_left_out_or_cross() {
    let x = || tensor(&[3], &[-2f32, 0.5, 9.0]);
    let bound = |value: f32| Some(Tensor::scalar(value));
    let eval = |low, high| node("Clip").eval(&[x(), low, high])[0].to_f32_vec().unwrap();
    assert_eq!(eval(bound(0.0), bound(1.0)), [0.0, 0.5, 1.0]);
    assert_eq!(eval(None, bound(1.0)), [-2.0, 0.5, 1.0]);
    assert_eq!(eval(bound(2.0), bound(1.0)), [1.0, 1.0, 1.0]);
    let old = Case::new("", "Clip", 6).with("min", 0.0f32);
    assert_eq!(old.eval(&[x()])[0].to_f32_vec().unwrap(), [0.0, 0.5, 9.0]);
    let ints = node("Clip").eval(&[ints(&[-5, 5]), Some(Tensor::scalar(0i64))]);
    assert_eq!(ints[0].to_i64_vec().unwrap(), [0, 5]);
    assert!(error(&node("Clip"), &[x(), x()]).contains("single number"));
    assert!(error(&node("Clip"), &[x(), Some(Tensor::scalar(1i64))]).contains("type"));
}

#[test]
fn the_shape_stays() {
    assert_eq!(shape(&node("Clip"), &[fact(&["b", "s"])]), "[b, s]");
}
