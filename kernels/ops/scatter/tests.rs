//! Tests of scatter.

use crate::ops::common::testing::*;
use crate::ops::support::testing::fact;

#[test]
fn slices_are_put_at_index_tuples() {
    let x = || tensor(&[2, 2], &[1i64, 2, 3, 4]);
    let inputs = [x(), tensor(&[1, 1], &[-1i64]), tensor(&[1, 2], &[8i64, 9])];
    assert_eq!(node("ScatterND").eval(&inputs)[0].to_i64_vec().unwrap(), [1, 2, 8, 9]);
    let sum = node("ScatterND").with("reduction", "add");
    let twice = [x(), tensor(&[2, 2], &[0i64, 0, 0, 0]), ints(&[10, 100])];
    assert_eq!(sum.eval(&twice)[0].to_i64_vec().unwrap(), [111, 2, 3, 4]);
    let far = [x(), tensor(&[1, 1], &[2i64]), tensor(&[1, 2], &[8i64, 9])];
    assert!(error(&node("ScatterND"), &far).contains("out of bounds"));
    let misfit = [x(), tensor(&[1, 3], &[0i64; 3]), ints(&[1])];
    assert!(error(&node("ScatterND"), &misfit).contains("for data"));
    let other = node("ScatterND").with("reduction", "median");
    assert!(error(&other, &twice).contains("median"));
}

#[test]
fn single_elements_are_put_along_an_axis() {
    let x = tensor(&[2, 2], &[1f32, 2.0, 3.0, 4.0]);
    let case = node("ScatterElements").with("axis", 1);
    let at = tensor(&[2, 1], &[1i64, 0]);
    let inputs = [x.clone(), at.clone(), tensor(&[2, 1], &[8f32, 9.0])];
    assert_eq!(case.eval(&inputs)[0].to_f32_vec().unwrap(), [1.0, 8.0, 9.0, 4.0]);
    let max = node("ScatterElements").with("axis", 1).with("reduction", "max");
    assert_eq!(max.eval(&inputs)[0].to_f32_vec().unwrap(), [1.0, 8.0, 9.0, 4.0]);
    assert!(error(&case, &[x, at, tensor(&[1, 1], &[1f32])]).contains("updates of shape"));
}

#[test]
fn the_shape_is_that_of_the_data() {
    let facts = [fact(&["b", "s"]), fact(&["n", "1"]), fact(&["n", "s"])];
    assert_eq!(shape(&node("ScatterND"), &facts), "[b, s]");
}
