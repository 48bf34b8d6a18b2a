//! Tests of nonzero.

use crate::ops::common::testing::*;
use crate::ops::support::testing::fact;

#[test]
fn coordinates_are_listed_axis_by_axis() {
    let eval = |x| node("NonZero").eval(&[x]).remove(0);
    let found = eval(tensor(&[2, 2], &[1f32, 0.0, f32::NAN, -3.0]));
    assert_eq!((found.shape(), found.to_i64_vec().unwrap()), (&[2, 3][..], vec![0, 1, 1, 0, 0, 1]));
    assert_eq!(eval(tensor(&[2], &[0u8, 0])).shape(), [1, 0]);
}

#[test]
fn the_number_of_elements_is_open() {
    let fact = inferred(&node("NonZero"), &[fact(&["b", "s"])]);
    let shape = fact.shape.unwrap();
    assert_eq!(shape[0].as_const(), Some(2));
    assert_eq!(shape[1].as_const(), None);
}
