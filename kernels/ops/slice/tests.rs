//! Tests of slice.

use planish_ir::Tensor;

use crate::ops::common::testing::*;
use crate::ops::support::testing::{Case, fact};

fn sliced(x: &[i64], start: i64, end: i64, step: i64) -> Vec<i64> {
    let inputs = [ints(x), ints(&[start]), ints(&[end]), ints(&[0]), ints(&[step])];
    both(&node("Slice"), &inputs).to_i64_vec().unwrap()
}

#[test]
fn bounds_are_clamped() {
    let x = [0, 1, 2, 3, 4];
    assert_eq!(sliced(&x, 1, 3, 1), [1, 2]);
    assert_eq!(sliced(&x, -2, i64::MAX, 1), [3, 4]);
    assert_eq!(sliced(&x, -9, 9, 2), [0, 2, 4]);
    assert_eq!(sliced(&x, 3, 1, 1), []);
    assert_eq!(sliced(&x, 5, 9, 1), []);
    assert_eq!(sliced(&x, -1, i64::MIN, -1), [4, 3, 2, 1, 0]);
    assert_eq!(sliced(&x, 9, 0, -3), [4, 1]);
    assert_eq!(sliced(&x, -9, -99, -1), [0]);
    assert_eq!(sliced(&x, 0, 5, i64::MAX), [0]);
    assert_eq!(sliced(&x, 4, i64::MIN, i64::MIN), [4]);
    assert_eq!(sliced(&[], 0, 1, 1), []);
    assert_eq!(sliced(&[], -1, i64::MIN, -1), []);
}

#[test]
fn axes_may_be_left_out_or_negative() {
    let x = || tensor(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let last = both(&node("Slice"), &[x(), ints(&[1]), ints(&[2]), ints(&[-1])]);
    assert_eq!(last.to_f32_vec().unwrap(), [2.0, 5.0]);
    let first = both(&node("Slice"), &[x(), ints(&[1]), ints(&[2])]);
    assert_eq!(first.to_f32_vec().unwrap(), [4.0, 5.0, 6.0]);
    let old = Case::new("", "Slice", 9);
    let old = old.with("starts", vec![0i64]).with("ends", vec![1i64]).with("axes", vec![1i64]);
    assert_eq!(both(&old, &[x()]).to_f32_vec().unwrap(), [1.0, 4.0]);
    let fails = |inputs: &[Option<Tensor>]| error(&node("Slice"), inputs);
    assert!(fails(&[x(), ints(&[0, 0]), ints(&[1])]).contains("lengths"));
    assert!(fails(&[x(), ints(&[0]), ints(&[1]), ints(&[2])]).contains("axis 2"));
    assert!(fails(&[x(), ints(&[0]), ints(&[1]), ints(&[0]), ints(&[0])]).contains("step"));
    assert!(fails(&[x(), ints(&[0])]).contains("input 2"));
}

/// The size that is left of an axis of size `size`.
fn left(size: &str, start: &str, end: &str) -> String {
    let axes = sizes(&["0"]);
    shape(&node("Slice"), &[fact(&[size]), sizes(&[start]), sizes(&[end]), axes])
}

#[test]
fn symbolic_bounds_give_symbolic_sizes() {
    assert_eq!(left("n", "0", "9223372036854775807"), "[n]");
    assert_eq!(left("n", "1", "9223372036854775807"), "[max(0, n - 1)]");
    assert_eq!(left("past + seq", "0", "past"), "[past]");
    assert_eq!(left("past + seq", "past", "9223372036854775807"), "[seq]");
    assert_eq!(left("past + seq", "0", "past + seq"), "[past + seq]");
    assert_eq!(left("past + seq", "0", "2*past + seq"), "[past + seq]", "beyond the end");
    assert_eq!(left("2048", "past", "past + seq"), "[seq]", "taken to lie inside");
    assert_eq!(left("past + seq", "-seq", "9223372036854775807"), "[seq]");
    assert_eq!(left("n", "-1", "9223372036854775807"), "[min(1, n)]");
    assert_eq!(left("n + 4", "-3", "9223372036854775807"), "[3]");
    assert_eq!(left("n + 1", "0", "-1"), "[n]");
    assert_eq!(left("n", "0", "4"), "[min(4, n)]");
    assert_eq!(left("n", "9223372036854775807", "0"), "[0]", "nothing, not −n");
}

#[test]
fn steps_divide_symbolic_sizes() {
    let facts = |start: &str, step: &str| {
        let all = ["9223372036854775807"];
        [fact(&["2*n"]), sizes(&[start]), sizes(&all), sizes(&["0"]), sizes(&[step])]
    };
    assert_eq!(shape(&node("Slice"), &facts("0", "1")), "[2*n]");
    assert!(shape(&node("Slice"), &facts("0", "2")).contains("//(2)"));
}

#[test]
fn lists_of_sizes_are_sliced() {
    let facts = |start: &str, end: &str| [sizes(&["b", "s", "8"]), sizes(&[start]), sizes(&[end])];
    assert_eq!(elements(&node("Slice"), &facts("-2", "-1")), "[s]");
    assert_eq!(elements(&node("Slice"), &facts("1", "99")), "[s, 8]");
    assert_eq!(inferred(&node("Slice"), &facts("s", "99")).dims, None);
}
