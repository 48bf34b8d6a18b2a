//! Tests of range.

use planish_ir::Tensor;

use crate::ops::common::testing::*;

fn range(start: i64, limit: i64, delta: i64) -> Vec<i64> {
    let inputs = [start, limit, delta].map(|x| Some(Tensor::scalar(x)));
    node("Range").eval(&inputs)[0].to_i64_vec().unwrap()
}

#[test]
fn the_limit_is_left_out() {
    assert_eq!(range(1, 7, 2), [1, 3, 5]);
    assert_eq!(range(1, 8, 3), [1, 4, 7]);
    assert_eq!(range(3, 0, -1), [3, 2, 1]);
    assert_eq!(range(3, 3, 1), []);
    assert_eq!(range(3, 0, 1), []);
    let floats = [0.5f32, 2.0, 0.5].map(|x| Some(Tensor::scalar(x)));
    assert_eq!(node("Range").eval(&floats)[0].to_f32_vec().unwrap(), [0.5, 1.0, 1.5]);
}

#[test]
fn impossible_steps_are_errors() {
    let scalars = |values: [i64; 3]| values.map(|x| Some(Tensor::scalar(x)));
    assert!(error(&node("Range"), &scalars([0, 1, 0])).contains("delta is 0"));
    assert!(error(&node("Range"), &scalars([0, i64::MAX, 1])).contains("memory"));
    assert!(error(&node("Range"), &[ints(&[0, 1]), ints(&[1]), ints(&[1])]).contains("single"));
}

#[test]
fn the_length_is_a_difference() {
    let length =
        |start, limit, delta| shape(&node("Range"), &[size(start), size(limit), size(delta)]);
    assert_eq!(length("0", "seq", "1"), "[seq]");
    assert_eq!(length("past", "past + seq", "1"), "[seq]");
    assert_eq!(length("0", "2*n", "2"), "[(2*n + 1)//(2)]");
    assert_eq!(length("5", "0", "1"), "[0]");
    assert!(node("Range").infer(&[size("0"), size("5"), size("0")]).is_err());
    assert!(length("0", "n", "m").contains("unknown_"));
    assert_eq!(elements(&node("Range"), &[size("n"), size("n + 2"), size("1")]), "[n, n + 1]");
}
