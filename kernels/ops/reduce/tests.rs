//! Tests of reduce.

use crate::Fact;
use crate::ops::common::testing::*;
use crate::ops::support::testing::{Case, Random, fact};

#[test]
fn axes_come_as_input_or_attribute() {
    let x = || tensor(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let case = node("ReduceSum").with("keepdims", 0);
    assert_eq!(both(&case, &[x(), ints(&[-1])]).to_f32_vec().unwrap(), [6.0, 15.0]);
    assert_eq!(both(&case, &[x(), ints(&[0])]).to_f32_vec().unwrap(), [5.0, 7.0, 9.0]);
    assert_eq!(both(&case, &[x()]).to_f32_vec().unwrap(), [21.0]);
    let old = Case::new("", "ReduceMean", 13).with("axes", vec![1i64]);
    let mean = both(&old, &[x()]);
    assert_eq!((mean.shape(), mean.to_f32_vec().unwrap()), (&[2, 1][..], vec![2.0, 5.0]));
    let nothing = node("ReduceSum").with("noop_with_empty_axes", 1);
    assert_eq!(both(&nothing, &[x(), ints(&[])]), x().unwrap());
    assert!(error(&case, &[x(), ints(&[2])]).contains("axis 2"));
    assert!(error(&case, &[x(), ints(&[0, -2])]).contains("twice"));
}

#[test]
fn every_reduction_is_what_its_name_says() {
    let x = || [ints(&[3, -4, 12]), ints(&[0])];
    for (op, expected) in [
        ("ReduceSum", 11),
        ("ReduceMean", 3),
        ("ReduceMax", 12),
        ("ReduceMin", -4),
        ("ReduceProd", -144),
        ("ReduceSumSquare", 169),
        ("ReduceL1", 19),
        ("ReduceL2", 13),
    ] {
        assert_eq!(both(&node(op), &x()).to_i64_vec().unwrap(), [expected], "{op}");
    }
}

#[test]
fn fast_forms_agree_over_the_first_axes() {
    let mut random = Random::new(10);
    for op in ["ReduceMean", "ReduceSum", "ReduceL2"] {
        for axes in [&[0][..], &[0, 1]] {
            for shape in [&[7, 5, 37][..], &[130, 9, 33]] {
                let inputs = [Some(random.tensor(shape)), ints(axes)];
                node(op).assert_kernel_agrees(&inputs, &[], 1e-5);
            }
        }
    }
}

#[test]
fn fast_forms_agree_over_the_last_axes() {
    let mut random = Random::new(9);
    for op in ["ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceMax"] {
        for axes in [&[-1][..], &[1, 2], &[0], &[0, 1, 2]] {
            let inputs = [Some(random.tensor(&[7, 5, 37])), ints(axes)];
            node(op).assert_kernel_agrees(&inputs, &[], 1e-5);
        }
    }
    let large = [Some(random.tensor(&[100, 576])), ints(&[-1])];
    node("ReduceMean").assert_kernel_agrees(&large, &[], 1e-5);
}

#[test]
fn nothing_is_reduced_to_the_start() {
    let empty = || [tensor::<f32>(&[2, 0], &[]), ints(&[1])];
    assert_eq!(both(&node("ReduceSum"), &empty()).to_f32_vec().unwrap(), [0.0, 0.0]);
    assert_eq!(both(&node("ReduceProd"), &empty()).to_f32_vec().unwrap(), [1.0, 1.0]);
    let max = node("ReduceMax").eval(&empty()).remove(0);
    assert_eq!(max.to_f32_vec().unwrap(), [f32::NEG_INFINITY; 2]);
    let ints = [tensor::<i32>(&[0], &[])];
    assert_eq!(node("ReduceMax").eval(&ints)[0].to_i64_vec().unwrap(), [i64::from(i32::MIN)]);
}

#[test]
fn symbols_that_are_not_reduced_stay() {
    let case = node("ReduceMean");
    assert_eq!(shape(&case, &[fact(&["b", "s", "576"]), sizes(&["-1"])]), "[b, s, 1]");
    let drop = node("ReduceSum").with("keepdims", 0);
    assert_eq!(shape(&drop, &[fact(&["b", "s"]), sizes(&["1"])]), "[b]");
    let open = Fact::new(Some(planish_ir::DataType::I64), fact(&["1"]).shape);
    assert_eq!(inferred(&case, &[fact(&["b", "s"]), open.clone()]).rank(), Some(2));
    assert_eq!(inferred(&drop, &[fact(&["b", "s"]), open]).rank(), None);
    let product = node("ReduceProd").with("keepdims", 0);
    assert_eq!(elements(&product, &[sizes(&["b", "s", "4"])]), "[4*b*s]");
}
