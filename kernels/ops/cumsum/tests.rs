//! Tests of cumsum.

use planish_ir::Tensor;

use crate::ops::common::testing::*;
use crate::ops::support::testing::fact;

#[test]
fn sums_run_either_way() {
    let x = || tensor(&[2, 3], &[1i64, 2, 3, 4, 5, 6]);
    let eval = |exclusive: i64, reverse: i64, axis: i64| {
        let case = node("CumSum").with("exclusive", exclusive).with("reverse", reverse);
        case.eval(&[x(), Some(Tensor::scalar(axis))])[0].to_i64_vec().unwrap()
    };
    assert_eq!(eval(0, 0, -1), [1, 3, 6, 4, 9, 15]);
    assert_eq!(eval(1, 0, 1), [0, 1, 3, 0, 4, 9]);
    assert_eq!(eval(0, 1, 1), [6, 5, 3, 15, 11, 6]);
    assert_eq!(eval(1, 1, 0), [4, 5, 6, 0, 0, 0]);
    assert!(error(&node("CumSum"), &[x(), ints(&[2])]).contains("axis 2"));
    assert!(error(&node("CumSum"), &[x(), ints(&[0, 1])]).contains("one number"));
}

#[test]
fn the_shape_stays() {
    assert_eq!(shape(&node("CumSum"), &[fact(&["b", "s"]), size("1")]), "[b, s]");
}
