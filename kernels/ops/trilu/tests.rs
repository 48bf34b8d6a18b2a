//! Tests of trilu.

use planish_ir::{DataType, Tensor};

use crate::ops::common::testing::*;
use crate::ops::support::testing::fact;

#[test]
fn a_triangle_is_kept() {
    let x = || tensor(&[2, 3], &[1i64, 2, 3, 4, 5, 6]);
    let eval = |upper: i64, k: Option<i64>| {
        let inputs = [x(), k.map(Tensor::scalar)];
        node("Trilu").with("upper", upper).eval(&inputs)[0].to_i64_vec().unwrap()
    };
    assert_eq!(eval(1, None), [1, 2, 3, 0, 5, 6]);
    assert_eq!(eval(1, Some(1)), [0, 2, 3, 0, 0, 6]);
    assert_eq!(eval(0, None), [1, 0, 0, 4, 5, 0]);
    assert_eq!(eval(0, Some(-1)), [0, 0, 0, 4, 0, 0]);
    assert_eq!(node("Trilu").eval(&[tensor::<f32>(&[2, 0, 3], &[])])[0].shape(), [2, 0, 3]);
    assert!(error(&node("Trilu"), &[ints(&[1])]).contains("rank 1"));
    assert!(error(&node("Trilu"), &[x(), ints(&[])]).contains("empty"));
}

#[test]
fn four_bit_elements_are_taken_as_well() {
    let x = Some(Tensor::from_int4_codes(&[2, 2], &[1, 2, 3, 4]));
    let upper = node("Trilu").eval(&[x]).remove(0);
    assert_eq!((upper.dtype(), upper.to_i64_vec().unwrap()), (DataType::I4, vec![1, 2, 0, 4]));
}

#[test]
fn the_shape_stays() {
    assert_eq!(shape(&node("Trilu"), &[fact(&["s", "past + s"])]), "[s, past + s]");
    assert!(node("Trilu").infer(&[fact(&["s"])]).is_err());
}
