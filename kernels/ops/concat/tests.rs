//! Tests of concat.

use crate::Fact;
use crate::ops::common::testing::*;
use crate::ops::support::testing::{Random, fact, present};

#[test]
fn tensors_are_joined_along_any_axis() {
    let (a, b) = (tensor(&[2, 1], &[1f32, 2.0]), tensor(&[2, 2], &[3f32, 4.0, 5.0, 6.0]));
    let joined = both(&node("Concat").with("axis", -1), &[a.clone(), b.clone()]);
    assert_eq!(joined.to_f32_vec().unwrap(), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
    let empty = tensor::<f32>(&[2, 0], &[]);
    assert_eq!(both(&node("Concat").with("axis", 1), &[empty, a.clone()]).shape(), [2, 1]);
    let mut random = Random::new(6);
    let large = present(&[&random.tensor(&[40, 3, 500]), &random.tensor(&[40, 7, 500])]);
    node("Concat").with("axis", 1).assert_kernel_agrees(&large, &[], 0.0);
    assert!(error(&node("Concat").with("axis", 0), &[a.clone(), b]).contains("can't be joined"));
    assert!(error(&node("Concat").with("axis", 2), std::slice::from_ref(&a)).contains("axis 2"));
    assert!(error(&node("Concat").with("axis", 0), &[a, None]).contains("input 1"));
}

#[test]
fn sizes_are_added_along_the_axis() {
    let case = node("Concat").with("axis", -2);
    let facts = [fact(&["b", "3", "past", "64"]), fact(&["b", "3", "seq", "64"])];
    assert_eq!(shape(&case, &facts), "[b, 3, past + seq, 64]");
    let numbers = [fact(&["b", "1", "s", "64"]), fact(&["b", "1", "s", "n"])];
    assert_eq!(shape(&case, &numbers), "[b, 1, 2*s, 64]");
    let open = [fact(&["b", "3", "past", "64"]), Fact::new(facts[0].dtype, None)];
    let partial = inferred(&case, &open).shape.unwrap();
    assert_eq!(format!("{:?}", [&partial[0], &partial[3]]), "[b, 64]");
    assert!(partial[2].to_string().contains("unknown_"));
    assert!(case.infer(&[fact(&["2", "1", "1", "1"]), fact(&["3", "1", "1", "1"])]).is_err());
}

#[test]
fn lists_of_sizes_are_joined() {
    let case = node("Concat").with("axis", 0);
    assert_eq!(elements(&case, &[sizes(&["b", "s"]), sizes(&["9", "64"])]), "[b, s, 9, 64]");
    let open = Fact::new(Some(planish_ir::DataType::I64), fact(&["1"]).shape);
    assert_eq!(inferred(&case, &[sizes(&["b"]), open]).dims, None);
}
