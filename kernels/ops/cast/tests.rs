//! Tests of cast.

use planish_ir::{DataType, Tensor};

use crate::ops::common::testing::*;
use crate::ops::support::testing::Case;

const ALL: [DataType; 11] = {
    use DataType::*;
    [F32, F64, F16, BF16, I64, I32, I8, U8, Bool, I4, U4]
};

fn cast(to: DataType) -> Case {
    node("Cast").with("to", i64::from(to.to_onnx()))
}

#[test]
fn small_numbers_survive_every_pair_of_types() {
    let x = ints(&[0, 1, 1, 0, 1]);
    for from in ALL {
        let start = cast(from).eval(std::slice::from_ref(&x));
        for to in ALL {
            let there = both(&cast(to), &[Some(start[0].clone())]);
            assert_eq!(there.dtype(), to);
            let back = both(&cast(DataType::I64), &[Some(there)]);
            assert_eq!(back, x.clone().unwrap(), "{from} to {to}");
        }
    }
}

#[test]
fn four_bit_codes_keep_their_low_bits() {
    let bytes = [tensor(&[3], &[-8i8, 9, 127])];
    let codes = both(&cast(DataType::I4), &bytes);
    assert_eq!(codes.to_i64_vec().unwrap(), [-8, -7, -1]);
    let unsigned = both(&cast(DataType::U4), &bytes);
    assert_eq!(unsigned.to_i64_vec().unwrap(), [8, 9, 15]);
}

#[test]
fn the_second_input_may_name_the_type() {
    let like = [tensor(&[2], &[1.5f32, -1.5]), ints(&[])];
    assert_eq!(both(&node("CastLike"), &like).to_i64_vec().unwrap(), [1, -1]);
}

#[test]
fn sizes_pass_between_integer_types() {
    let (list, narrow) = (sizes(&["seq", "4"]), cast(DataType::I32));
    assert_eq!(elements(&narrow, std::slice::from_ref(&list)), "[seq, 4]");
    assert_eq!(inferred(&cast(DataType::F32), &[list]).dims, None);
}

#[test]
fn other_types_are_refused() {
    let text = Tensor::from_strings(vec![1], vec!["a".into()]).unwrap();
    assert!(error(&cast(DataType::F32), &[Some(text)]).contains("string"));
    assert!(error(&cast(DataType::F8E5M2), &[ints(&[1])]).contains("float8e5m2"));
    assert!(error(&node("Cast").with("to", 99), &[ints(&[1])]).contains("99"));
}
