//! Tests of gather.

use crate::ops::common::testing::*;
use crate::ops::support::testing::{Random, fact};

#[test]
fn slices_are_gathered_along_any_axis() {
    let x = || tensor(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let rows = both(&node("Gather"), &[x(), tensor(&[1, 2], &[1i64, -2])]);
    assert_eq!((rows.shape(), rows.to_f32_vec().unwrap()[3]), (&[1, 2, 3][..], 1.0));
    let column = both(&node("Gather").with("axis", -1), &[x(), tensor(&[], &[2i32])]);
    assert_eq!((column.shape(), column.to_f32_vec().unwrap()), (&[2][..], vec![3.0, 6.0]));
    assert_eq!(both(&node("Gather"), &[x(), ints(&[])]).shape(), [0, 3]);
    for index in [2, -3, i64::MIN] {
        assert!(error(&node("Gather"), &[x(), ints(&[index])]).contains("out of bounds"));
    }
    let table = Some(Random::new(7).tensor(&[100, 600]));
    let indices: Vec<i64> = (0..90).map(|i| i * 7 % 100 - 50).collect();
    node("Gather").assert_kernel_agrees(&[table, ints(&indices)], &[], 0.0);
}

#[test]
fn sizes_are_gathered() {
    let list = sizes(&["b", "s", "8"]);
    let scalar = inferred(&node("Gather"), &[list.clone(), size("1")]);
    assert_eq!((scalar.rank(), format!("{:?}", scalar.dims)), (Some(0), "Some([s])".into()));
    assert_eq!(elements(&node("Gather"), &[list.clone(), sizes(&["-1", "0"])]), "[8, b]");
    assert!(node("Gather").infer(&[list, sizes(&["3"])]).is_err());
    let ids = [fact(&["49152", "576"]), fact(&["b", "s"])];
    assert_eq!(shape(&node("Gather"), &ids), "[b, s, 576]");
}

#[test]
fn single_elements_are_gathered() {
    let x = || tensor(&[2, 2], &[1i64, 2, 3, 4]);
    let case = node("GatherElements").with("axis", 1);
    let picked = case.eval(&[x(), tensor(&[2, 3], &[0i64, 1, -1, 1, 0, 0])]);
    assert_eq!(picked[0].to_i64_vec().unwrap(), [1, 2, 2, 4, 3, 3]);
    assert!(error(&case, &[x(), tensor(&[3, 1], &[0i64; 3])]).contains("indices of shape"));
    assert!(error(&case, &[x(), tensor(&[1, 1], &[2i64])]).contains("out of bounds"));
}

#[test]
fn index_tuples_name_slices() {
    let x = || tensor(&[2, 2, 2], &[0i64, 1, 2, 3, 4, 5, 6, 7]);
    let rows = node("GatherND").eval(&[x(), tensor(&[2, 2], &[0i64, 1, 1, 0])]);
    assert_eq!(rows[0].to_i64_vec().unwrap(), [2, 3, 4, 5]);
    let batched = node("GatherND").with("batch_dims", 1);
    let rows = batched.eval(&[x(), tensor(&[2, 1], &[1i64, 0])]);
    assert_eq!(rows[0].to_i64_vec().unwrap(), [2, 3, 4, 5]);
    assert!(error(&node("GatherND"), &[x(), tensor(&[1, 1], &[2i64])]).contains("out of bounds"));
    assert!(error(&node("GatherND"), &[x(), tensor(&[1, 4], &[0i64; 4])]).contains("tuples of 4"));
    assert!(error(&batched, &[x(), tensor(&[1, 1], &[0i64])]).contains("batch axes"));
    let facts = [fact(&["b", "1", "n"]), fact(&["b", "s", "3"])];
    assert_eq!(shape(&node("GatherND"), &facts), "[b, s]");
}
