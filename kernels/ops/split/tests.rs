//! Tests of split.

use planish_ir::Tensor;

use crate::ops::common::testing::*;
use crate::ops::support::testing::{Case, fact};

fn parts(case: &Case, inputs: &[Option<Tensor>]) -> Vec<Vec<i64>> {
    case.assert_kernel_agrees(inputs, &[], 0.0);
    case.eval(inputs).iter().map(|t| t.to_i64_vec().unwrap()).collect()
}

#[test]
fn parts_are_given_or_equal() {
    let x = || tensor(&[2, 3], &[1i64, 2, 3, 4, 5, 6]);
    let case = node("Split").with("axis", -1).outputs(2);
    assert_eq!(parts(&case, &[x(), ints(&[1, 2])]), [vec![1, 4], vec![2, 3, 5, 6]]);
    assert_eq!(parts(&case, &[x(), ints(&[0, 3])])[0], []);
    let uneven = node("Split").with("axis", 1).with("num_outputs", 2).outputs(2);
    assert_eq!(parts(&uneven, &[x()]), [vec![1, 2, 4, 5], vec![3, 6]]);
    let old = Case::new("", "Split", 11).with("split", vec![1i64, 1]).outputs(2);
    assert_eq!(parts(&old, &[x()]), [[1, 2, 3], [4, 5, 6]]);
    for wrong in [&[1, 1][..], &[4, -1], &[i64::MAX, 4]] {
        assert!(!error(&case, &[x(), ints(wrong)]).is_empty(), "{wrong:?}");
    }
    assert!(!error(&node("Split").with("num_outputs", 0), &[x()]).is_empty());
}

#[test]
fn shapes_and_lists_are_split() {
    let case = node("Split").with("axis", 2).outputs(2);
    let facts = case.infer(&[fact(&["b", "s", "576"]), sizes(&["192", "384"])]).unwrap();
    assert_eq!(format!("{:?}", facts[1].shape), "Some([b, s, 384])");
    let equal = node("Split").with("num_outputs", 2).outputs(2);
    let facts = equal.infer(&[fact(&["2*n"])]).unwrap();
    assert_eq!(format!("{:?}", facts[1].shape), "Some([n])");
    let facts = equal.infer(&[sizes(&["b", "s", "4", "5"])]).unwrap();
    assert_eq!(format!("{:?}", facts[1].dims), "Some([4, 5])");
    assert!(case.infer(&[fact(&["b", "s", "576"]), sizes(&["1", "2"])]).is_err());
}
