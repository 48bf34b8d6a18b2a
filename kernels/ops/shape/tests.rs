//! Tests of shape.

use crate::Fact;
use crate::ops::common::testing::*;
use crate::ops::support::testing::fact;

#[test]
fn a_range_of_axes_can_be_asked_for() {
    let x = [tensor::<f32>(&[2, 0, 5], &[])];
    for (start, end, expected) in [
        (0, i64::MAX, &[2, 0, 5][..]),
        (1, 2, &[0]),
        (-1, i64::MAX, &[5]),
        (0, -1, &[2, 0]),
        (-9, 9, &[2, 0, 5]),
        (2, 1, &[]),
        (i64::MIN, i64::MIN, &[]),
    ] {
        let case = node("Shape").with("start", start).with("end", end);
        assert_eq!(both(&case, &x).to_i64_vec().unwrap(), expected, "{start}..{end}");
    }
}

#[test]
fn sizes_become_elements() {
    assert_eq!(elements(&node("Shape"), &[fact(&["batch", "4"])]), "[batch, 4]");
    assert_eq!(elements(&node("Shape").with("start", 1), &[fact(&["batch", "4"])]), "[4]");
    assert_eq!(elements(&node("Size"), &[fact(&["batch", "4"])]), "[4*batch]");
    assert_eq!(inferred(&node("Shape"), &[Fact::unknown()]).rank(), Some(1));
    assert_eq!(node("Size").eval(&[tensor(&[2, 1], &[0u8; 2])])[0].to_i64_vec().unwrap(), [2]);
}
