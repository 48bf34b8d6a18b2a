//! Tests of pad.

use planish_ir::Tensor;

use crate::ops::common::testing::*;
use crate::ops::support::testing::{Case, fact};

fn padded(mode: &str, before: i64, after: i64) -> Vec<i64> {
    let case = node("Pad").with("mode", mode);
    let inputs = [ints(&[1, 2, 3]), ints(&[before, after])];
    case.eval(&inputs)[0].to_i64_vec().unwrap()
}

#[test]
fn every_mode_fills_in_its_way() {
    assert_eq!(padded("constant", 1, 2), [0, 1, 2, 3, 0, 0]);
    assert_eq!(padded("constant", -1, 1), [2, 3, 0]);
    assert_eq!(padded("edge", 2, 1), [1, 1, 1, 2, 3, 3]);
    assert_eq!(padded("reflect", 2, 1), [3, 2, 1, 2, 3, 2]);
    assert_eq!(padded("wrap", 1, 1), [3, 1, 2, 3, 1]);
}

#[test]
fn values_and_axes_may_be_given() {
    let x = || tensor(&[1, 2], &[1f32, 2.0]);
    let inputs = [x(), ints(&[1, 0]), Some(Tensor::scalar(9f32)), ints(&[-1])];
    assert_eq!(node("Pad").eval(&inputs)[0].to_f32_vec().unwrap(), [9.0, 1.0, 2.0]);
    let old = Case::new("", "Pad", 2).with("pads", vec![0i64, 0, 1, 0]).with("value", 5.0f32);
    assert_eq!(old.eval(&[x()])[0].to_f32_vec().unwrap(), [1.0, 2.0, 5.0, 5.0]);
    assert!(error(&node("Pad"), &[x(), ints(&[1])]).contains("1 pads for 2 axes"));
    assert!(error(&node("Pad"), &[x(), ints(&[0, -2, 0, -1])]).contains("negative size"));
    assert!(error(&node("Pad").with("mode", "odd"), &[x(), ints(&[0; 4])]).contains("odd"));
}

#[test]
fn symbolic_sizes_grow() {
    let facts = [fact(&["b", "s"]), sizes(&["0", "1", "0", "2"])];
    assert_eq!(shape(&node("Pad"), &facts), "[b, s + 3]");
}
