//! Tests of reshape.

use crate::Fact;
use crate::ops::common::testing::*;
use crate::ops::support::testing::{Case, fact};

fn reshaped(x: &[usize], target: &[i64]) -> Vec<usize> {
    let x = tensor(x, &vec![0f32; x.iter().product()]);
    both(&node("Reshape"), &[x, ints(target)]).shape().to_vec()
}

#[test]
fn reshape_fills_in_what_is_left_open() {
    assert_eq!(reshaped(&[2, 3, 4], &[0, -1]), [2, 12]);
    assert_eq!(reshaped(&[2, 3, 4], &[4, 0, -1]), [4, 3, 2]);
    assert_eq!(reshaped(&[1], &[]), []);
    assert_eq!(reshaped(&[0, 3], &[3, -1]), [3, 0]);
    let keep = node("Reshape").with("allowzero", 1);
    let empty = tensor::<f32>(&[3, 0], &[]);
    assert_eq!(both(&keep, &[empty, ints(&[0, 7])]).shape(), [0, 7]);
}

#[test]
fn impossible_shapes_are_errors() {
    let x = tensor(&[2, 3], &[0f32; 6]);
    for target in [&[-1, -1][..], &[-1, 4], &[5], &[6, 1, 0], &[-2, 3], &[i64::MAX, 2]] {
        assert!(!error(&node("Reshape"), &[x.clone(), ints(target)]).is_empty(), "{target:?}");
    }
    assert!(error(&node("Reshape"), std::slice::from_ref(&x)).contains("input 1 is absent"));
}

#[test]
fn reshape_solves_symbolic_sizes() {
    let target =
        |dims: &[&str]| shape(&node("Reshape"), &[fact(&["batch", "seq", "576"]), sizes(dims)]);
    assert_eq!(target(&["batch", "-1", "9", "64"]), "[batch, seq, 9, 64]");
    assert_eq!(target(&["0", "0", "-1", "64"]), "[batch, seq, 9, 64]");
    assert_eq!(target(&["-1", "576"]), "[batch*seq, 576]");
    assert_eq!(target(&["batch", "seq", "-1"]), "[batch, seq, 576]");
    assert!(target(&["-1", "5"]).contains("unknown_"));
    let joined =
        [fact(&["batch", "3", "3", "past + seq", "64"]), sizes(&["batch", "9", "-1", "64"])];
    assert_eq!(shape(&node("Reshape"), &joined), "[batch, 9, past + seq, 64]");
}

#[test]
fn an_unknown_target_still_has_a_rank() {
    let target = Fact::new(Some(planish_ir::DataType::I64), fact(&["3"]).shape);
    let shape = inferred(&node("Reshape"), &[fact(&["a", "b"]), target]).shape.unwrap();
    assert_eq!(shape.len(), 3);
}

#[test]
fn lists_of_sizes_stay_followed() {
    assert_eq!(elements(&node("Reshape"), &[size("seq"), sizes(&["-1"])]), "[seq]");
    assert_eq!(elements(&node("Unsqueeze"), &[size("seq"), sizes(&["0"])]), "[seq]");
    let scalar = inferred(&node("Squeeze"), &[sizes(&["seq"]), sizes(&["0"])]);
    assert_eq!((scalar.rank(), scalar.dims.unwrap().len()), (Some(0), 1));
}

#[test]
fn flatten_makes_a_matrix() {
    let x = tensor(&[2, 3, 4], &[0f32; 24]);
    for (axis, expected) in [(1, [2, 12]), (0, [1, 24]), (3, [24, 1]), (-1, [6, 4])] {
        let case = node("Flatten").with("axis", axis);
        assert_eq!(both(&case, std::slice::from_ref(&x)).shape(), expected);
    }
    assert!(error(&node("Flatten").with("axis", 4), &[x]).contains("out of range"));
    assert_eq!(shape(&node("Flatten"), &[fact(&["b", "seq", "4"])]), "[b, 4*seq]");
}

#[test]
fn squeeze_and_unsqueeze_take_axes_of_both_kinds() {
    let x = || tensor(&[1, 3, 1], &[0f32; 3]);
    assert_eq!(both(&node("Squeeze"), &[x(), ints(&[-1])]).shape(), [1, 3]);
    assert_eq!(both(&node("Squeeze"), &[x()]).shape(), [3]);
    let old = Case::new("", "Squeeze", 11).with("axes", vec![0i64]);
    assert_eq!(both(&old, &[x()]).shape(), [3, 1]);
    assert!(error(&node("Squeeze"), &[x(), ints(&[1])]).contains("not of size 1"));
    assert_eq!(both(&node("Unsqueeze"), &[x(), ints(&[-1, 0])]).shape(), [1, 1, 3, 1, 1]);
    let old = Case::new("", "Unsqueeze", 11).with("axes", vec![1i64]);
    assert_eq!(both(&old, &[x()]).shape(), [1, 1, 3, 1]);
    assert!(error(&node("Unsqueeze"), &[x(), ints(&[0, 0])]).contains("twice"));
    assert!(error(&node("Unsqueeze"), &[x()]).contains("input 1 is absent"));
    assert_eq!(shape(&node("Unsqueeze"), &[fact(&["b", "s"]), sizes(&["1"])]), "[b, 1, s]");
    assert_eq!(shape(&node("Squeeze"), &[fact(&["b", "1", "s"])]), "[b, s]");
}
