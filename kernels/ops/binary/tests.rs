//! Tests of binary.

use planish_ir::{DataType, Tensor};

use crate::Fact;
use crate::ops::common::testing::*;
use crate::ops::support::testing::{Random, fact, present};

#[test]
fn operands_are_broadcast() {
    let (a, b) = (tensor(&[2, 1], &[1f32, 2.0]), tensor(&[3], &[10f32, 20.0, 30.0]));
    let sum = both(&node("Add"), &[a.clone(), b.clone()]);
    assert_eq!(sum.shape(), [2, 3]);
    assert_eq!(sum.to_f32_vec().unwrap(), [11.0, 21.0, 31.0, 12.0, 22.0, 32.0]);
    let empty = both(&node("Mul"), &[tensor::<f32>(&[0, 1], &[]), b.clone()]);
    assert_eq!(empty.shape(), [0, 3]);
    assert!(error(&node("Add"), &[tensor(&[2], &[0f32; 2]), b.clone()]).contains("broadcast"));
    assert!(error(&node("Add"), &[ints(&[1, 2, 3]), b]).contains("types int64 and float"));
    assert!(error(&node("Add"), &[a]).contains("input 1 is absent"));
}

#[test]
fn fast_forms_agree_in_every_broadcast() {
    let mut random = Random::new(1);
    for op in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "LessOrEqual"] {
        for (a, b) in [
            (&[2, 3, 4][..], &[2, 3, 4][..]),
            (&[2, 3, 4], &[]),
            (&[4], &[2, 3, 4]),
            (&[2, 3, 1], &[2, 3, 4]),
            (&[2, 1, 4], &[1, 3, 1]),
            (&[200, 300], &[200, 1]),
            (&[40_000], &[40_000]),
        ] {
            let inputs = present(&[&random.tensor(a), &random.tensor(b)]);
            node(op).assert_kernel_agrees(&inputs, &[], 1e-6);
        }
    }
}

#[test]
fn integers_divide_toward_zero() {
    let inputs = [ints(&[7, -7, 7, i64::MIN]), ints(&[2, 2, -2, -1])];
    assert_eq!(both(&node("Div"), &inputs).to_i64_vec().unwrap(), [3, -3, -3, i64::MIN]);
    let inputs = [ints(&[7, -7, 7]), ints(&[3, 3, -3])];
    assert_eq!(both(&node("Mod"), &inputs).to_i64_vec().unwrap(), [1, 2, -2]);
    let rest = both(&node("Mod").with("fmod", 1), &inputs);
    assert_eq!(rest.to_i64_vec().unwrap(), [1, -1, 1]);
    for op in ["Div", "Mod"] {
        assert!(error(&node(op), &[ints(&[1]), ints(&[0])]).contains("divided by zero"));
    }
}

#[test]
fn the_usual_exponents_agree_with_the_function() {
    let x = Random::new(2).tensor(&[5]);
    for exponent in [2.0f32, 3.0, 0.5, 1.5] {
        let squares = tensor(&[5], &x.to_f32_vec().unwrap().map_abs());
        node("Pow").assert_kernel_agrees(&[squares, tensor(&[], &[exponent])], &[], 1e-6);
    }
    let mixed = both(&node("Pow"), &[ints(&[3, -2]), tensor(&[], &[3f32])]);
    assert_eq!(mixed.to_i64_vec().unwrap(), [27, -8]);
}

trait MapAbs {
    fn map_abs(self) -> Vec<f32>;
}

impl MapAbs for Vec<f32> {
    fn map_abs(self) -> Vec<f32> {
        self.into_iter().map(f32::abs).collect()
    }
}

#[test]
fn logic_takes_bools_and_bits_take_integers() {
    let bools = |values: &[bool]| Some(Tensor::from_bools(&[values.len()], values));
    let inputs = [bools(&[true, true, false]), bools(&[true, false, false])];
    assert_eq!(both(&node("Xor"), &inputs).to_i64_vec().unwrap(), [0, 1, 0]);
    let bits = both(&node("BitwiseAnd"), &[ints(&[6, -1]), ints(&[3, 5])]);
    assert_eq!(bits.to_i64_vec().unwrap(), [2, 5]);
    let inputs = [tensor(&[1], &[1f32]), tensor(&[1], &[1f32])];
    assert!(error(&node("And"), &inputs).contains("does not take"));
}

#[test]
fn variadic_operators_take_any_number() {
    let one = [tensor(&[2], &[1f32, 5.0])];
    assert_eq!(both(&node("Max"), &one).to_f32_vec().unwrap(), [1.0, 5.0]);
    let three = [ints(&[1, 9]), ints(&[4]), ints(&[2, 2])];
    assert_eq!(both(&node("Min"), &three).to_i64_vec().unwrap(), [1, 2]);
    let floats = [tensor(&[2], &[1f32, 2.0]), tensor(&[], &[4f32])];
    assert_eq!(node("Mean").eval(&floats)[0].to_f32_vec().unwrap(), [2.5, 3.0]);
    let nan = [tensor(&[2], &[f32::NAN, 1.0]), tensor(&[2], &[1.0, f32::NAN])];
    assert!(node("Max").eval(&nan)[0].to_f32_vec().unwrap().iter().all(|x| x.is_nan()));
}

#[test]
fn shapes_keep_their_symbols() {
    let facts = [fact(&["batch", "1", "8"]), fact(&["seq", "1"])];
    assert_eq!(shape(&node("Add"), &facts), "[batch, seq, 8]");
    let compared = inferred(&node("Less"), &facts);
    assert_eq!(compared.dtype, Some(DataType::Bool));
    assert_eq!(inferred(&node("Add"), &[Fact::unknown(), facts[0].clone()]).shape, None);
    assert!(node("Add").infer(&[fact(&["2"]), fact(&["3"])]).is_err());
}

#[test]
fn sizes_are_followed_through_arithmetic() {
    let (past, seq) = (size("past"), size("seq"));
    assert_eq!(elements(&node("Add"), &[past.clone(), seq.clone()]), "[past + seq]");
    let list = sizes(&["2*seq", "8", "past"]);
    assert_eq!(elements(&node("Div"), &[list.clone(), size("2")]), "[seq, 4, (past)//(2)]");
    assert_eq!(elements(&node("Mul"), &[list.clone(), size("-1")]), "[-2*seq, -8, -past]");
    assert_eq!(inferred(&node("Div"), &[list, size("0")]).dims, None);
    assert_eq!(elements(&node("Max"), &[sizes(&["seq"]), size("past + seq")]), "[past + seq]");
}

#[test]
fn no_size_is_negative() {
    let list = sizes(&["batch", "-1", "seq", "8"]);
    let minus_one = sizes(&["-1"]);
    let equal = inferred(&node("Equal"), &[list.clone(), minus_one.clone()]);
    assert_eq!(equal.constant.unwrap().to_i64_vec().unwrap(), [0, 1, 0, 0]);
    let above = inferred(&node("Greater"), &[list.clone(), minus_one]);
    assert_eq!(above.constant.unwrap().to_i64_vec().unwrap(), [1, 0, 1, 1]);
    assert_eq!(inferred(&node("Equal"), &[list, sizes(&["8"])]).constant, None, "it may be 8");
}
