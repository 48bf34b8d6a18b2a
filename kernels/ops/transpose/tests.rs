//! Tests of transpose.

use crate::ops::common::testing::*;
use crate::ops::support::testing::{Random, fact, present};

#[test]
fn fast_forms_agree_in_every_order() {
    let mut random = Random::new(5);
    for shape in [[2, 3, 4, 5], [1, 37, 2, 19], [2, 70, 3, 90], [1, 1, 5, 1]] {
        for perm in [[0, 2, 1, 3], [0, 1, 3, 2], [3, 2, 1, 0], [2, 3, 0, 1], [0, 2, 3, 1]] {
            let case = node("Transpose").with("perm", perm.to_vec());
            case.assert_kernel_agrees(&present(&[&random.tensor(&shape)]), &[], 0.0);
        }
    }
}

#[test]
fn axes_are_reversed_unless_given() {
    let x = tensor(&[2, 3], &[1i64, 2, 3, 4, 5, 6]);
    let y = both(&node("Transpose"), std::slice::from_ref(&x));
    assert_eq!((y.shape(), y.to_i64_vec().unwrap()), (&[3, 2][..], vec![1, 4, 2, 5, 3, 6]));
    assert_eq!(both(&node("Transpose"), &[tensor::<u8>(&[0, 2], &[])]).shape(), [2, 0]);
    for perm in [vec![0i64], vec![0, 0], vec![0, 2]] {
        assert!(!error(&node("Transpose").with("perm", perm), std::slice::from_ref(&x)).is_empty());
    }
}

#[test]
fn symbols_move_with_their_axes() {
    let case = node("Transpose").with("perm", vec![0i64, 2, 1]);
    assert_eq!(shape(&case, &[fact(&["b", "s", "8"])]), "[b, 8, s]");
    assert_eq!(inferred(&case, &[crate::Fact::unknown()]).rank(), Some(3));
}
