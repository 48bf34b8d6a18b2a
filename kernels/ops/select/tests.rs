//! Tests of select.

use planish_ir::Tensor;

use crate::Fact;
use crate::ops::common::testing::*;
use crate::ops::support::testing::{Random, fact};

fn bools(shape: &[usize], values: &[bool]) -> Option<Tensor> {
    Some(Tensor::from_bools(shape, values))
}

#[test]
fn all_three_are_broadcast() {
    let inputs = [
        bools(&[2, 1], &[true, false]),
        tensor(&[3], &[1f32, 2.0, 3.0]),
        tensor(&[], &[f32::NEG_INFINITY]),
    ];
    let picked = both(&node("Where"), &inputs);
    let none = f32::NEG_INFINITY;
    assert_eq!(picked.to_f32_vec().unwrap(), [1.0, 2.0, 3.0, none, none, none]);
    let empty = [bools(&[0], &[]), tensor(&[1], &[1f32]), tensor(&[1], &[2f32])];
    assert_eq!(both(&node("Where"), &empty).shape(), [0]);
}

#[test]
fn the_fast_form_agrees_in_every_broadcast() {
    let mut random = Random::new(4);
    let shapes: [&[usize]; 4] = [&[30, 40, 50], &[], &[50], &[30, 1, 1]];
    let truths: Vec<bool> = (0..60_000).map(|_| random.unit() < 0.0).collect();
    for x in shapes {
        for y in shapes {
            let (x, y) = (random.tensor(x), random.tensor(y));
            let inputs = [bools(&[30, 40, 50], &truths), Some(x), Some(y)];
            node("Where").assert_kernel_agrees(&inputs, &[], 0.0);
        }
    }
}

#[test]
fn a_known_condition_picks_sizes() {
    // What TorchScript makes of `expand` with −1: Where(Equal(shape, −1), ones, shape).
    let wanted = sizes(&["batch", "1", "seq"]);
    let condition = inferred(&node("Equal"), &[wanted.clone(), sizes(&["-1", "-1", "-1"])]);
    assert!(condition.constant.is_some());
    let picked = elements(&node("Where"), &[condition, sizes(&["1", "1", "1"]), wanted]);
    assert_eq!(picked, "[batch, 1, seq]");
    let open = Fact::new(Some(planish_ir::DataType::Bool), fact(&["3"]).shape);
    let facts = [open, sizes(&["1", "1", "1"]), sizes(&["1", "2", "3"])];
    assert_eq!(inferred(&node("Where"), &facts).dims, None);
}

#[test]
fn wrong_types_are_refused() {
    let x = tensor(&[1], &[1f32]);
    assert!(error(&node("Where"), &[ints(&[1]), x.clone(), x.clone()]).contains("bool"));
    let mixed = [bools(&[1], &[true]), x, ints(&[1])];
    assert!(error(&node("Where"), &mixed).contains("types"));
}
