//! Tests of extremum.

use crate::ops::common::testing::*;
use crate::ops::support::testing::{Case, fact};

#[test]
fn ties_go_to_the_first_or_last() {
    let x = || tensor(&[2, 3], &[5f32, 1.0, 5.0, 2.0, 0.0, 0.0]);
    let eval = |case: Case| case.eval(&[x()])[0].to_i64_vec().unwrap();
    let last = |op| node(op).with("axis", -1).with("select_last_index", 1);
    assert_eq!(eval(node("ArgMax").with("axis", -1)), [0, 0]);
    assert_eq!(eval(last("ArgMax")), [2, 0]);
    assert_eq!(eval(node("ArgMin").with("axis", 1)), [1, 1]);
    assert_eq!(eval(last("ArgMin")), [1, 2]);
    assert_eq!(node("ArgMax").with("keepdims", 0).eval(&[x()])[0].shape(), [3]);
    assert!(error(&node("ArgMax"), &[tensor::<f32>(&[0, 2], &[])]).contains("empty"));
    assert!(error(&node("ArgMax").with("axis", 2), &[x()]).contains("axis 2"));
}

#[test]
fn the_largest_or_smallest_come_in_order() {
    let x = || tensor(&[2, 3], &[1i64, 3, 2, 4, 4, 6]);
    let top = node("TopK").outputs(2).eval(&[x(), ints(&[2])]);
    assert_eq!(top[0].to_i64_vec().unwrap(), [3, 2, 6, 4]);
    assert_eq!(top[1].to_i64_vec().unwrap(), [1, 2, 2, 0]);
    let low = node("TopK").with("largest", 0).with("axis", 0).outputs(2).eval(&[x(), ints(&[1])]);
    assert_eq!(low[0].to_i64_vec().unwrap(), [1, 3, 2]);
    let old = Case::new("", "TopK", 9).with("k", 1).outputs(2).eval(&[x()]);
    assert_eq!(old[1].to_i64_vec().unwrap(), [1, 2]);
    assert_eq!(node("TopK").outputs(2).eval(&[x(), ints(&[0])])[0].shape(), [2, 0]);
    assert!(error(&node("TopK"), &[x(), ints(&[4])]).contains("largest"));
    assert!(error(&node("TopK"), &[x(), ints(&[-1])]).contains("largest"));
}

#[test]
fn shapes_keep_their_symbols() {
    let case = node("ArgMax").with("axis", -1).with("keepdims", 0);
    assert_eq!(shape(&case, &[fact(&["b", "s", "512"])]), "[b, s]");
    let top = node("TopK").outputs(2).infer(&[fact(&["b", "n"]), sizes(&["k"])]).unwrap();
    assert_eq!(format!("{:?}", top[1].shape), "Some([b, k])");
}
