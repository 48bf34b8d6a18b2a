//! Tests of expand.

use planish_ir::DataType;

use crate::Fact;
use crate::ops::common::testing::*;
use crate::ops::support::testing::{Random, fact};

#[test]
fn expansion_goes_both_ways() {
    let x = || tensor(&[2, 1], &[1f32, 2.0]);
    let y = both(&node("Expand"), &[x(), ints(&[1, 3])]);
    assert_eq!(y.to_f32_vec().unwrap(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    assert_eq!(both(&node("Expand"), &[x(), ints(&[2, 1, 1])]).shape(), [2, 2, 1]);
    assert_eq!(both(&node("Expand"), &[x(), ints(&[0])]).shape(), [2, 0]);
    assert!(error(&node("Expand"), &[x(), ints(&[3, 1])]).contains("broadcast"));
    assert!(error(&node("Expand"), &[x(), ints(&[-1])]).contains("negative"));
    let heads = Some(Random::new(8).tensor(&[2, 3, 1, 20, 64]));
    node("Expand").assert_kernel_agrees(&[heads, ints(&[2, 3, 3, 20, 64])], &[], 0.0);
}

#[test]
fn symbolic_sizes_are_expanded() {
    let heads = [fact(&["b", "3", "1", "n", "64"]), sizes(&["b", "3", "3", "n", "64"])];
    assert_eq!(shape(&node("Expand"), &heads), "[b, 3, 3, n, 64]");
    let open = Fact::new(Some(DataType::I64), fact(&["4"]).shape);
    assert_eq!(inferred(&node("Expand"), &[fact(&["1", "n"]), open]).rank(), Some(4));
    assert_eq!(elements(&node("Expand"), &[sizes(&["s"]), sizes(&["3"])]), "[s, s, s]");
}

#[test]
fn tiles_repeat() {
    let x = || tensor(&[1, 2], &[1i64, 2]);
    let tiled = node("Tile").eval(&[x(), ints(&[2, 2])]);
    assert_eq!(tiled[0].to_i64_vec().unwrap(), [1, 2, 1, 2, 1, 2, 1, 2]);
    assert_eq!(node("Tile").eval(&[x(), ints(&[0, 1])])[0].shape(), [0, 2]);
    assert!(error(&node("Tile"), &[x(), ints(&[2])]).contains("do not fit"));
    assert!(error(&node("Tile"), &[x(), ints(&[1, i64::MAX])]).contains("too many"));
    assert_eq!(shape(&node("Tile"), &[fact(&["b", "s"]), sizes(&["2", "n"])]), "[2*b, n*s]");
}
