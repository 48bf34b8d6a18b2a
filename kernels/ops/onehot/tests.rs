//! Tests of onehot.

use planish_ir::Tensor;

use crate::ops::common::testing::*;
use crate::ops::support::testing::fact;

#[test]
fn one_element_is_on() {
    let depth = || Some(Tensor::scalar(3i64));
    let values = || tensor(&[2], &[0f32, 1.0]);
    let rows = node("OneHot").eval(&[ints(&[0, -1, 7]), depth(), values()]);
    assert_eq!(rows[0].to_f32_vec().unwrap(), [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    let columns = node("OneHot").with("axis", 0).eval(&[ints(&[0, 2]), depth(), values()]);
    assert_eq!(columns[0].to_f32_vec().unwrap(), [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    let fails = |depth, values| error(&node("OneHot"), &[ints(&[0]), depth, values]);
    assert!(fails(Some(Tensor::scalar(-1i64)), values()).contains("depth"));
    assert!(fails(depth(), tensor(&[1], &[0f32])).contains("pair"));
}

#[test]
fn the_depth_becomes_a_size() {
    let facts = [fact(&["b", "s"]), size("n"), fact(&["2"])];
    assert_eq!(shape(&node("OneHot"), &facts), "[b, s, n]");
}
