//! Tests of `QuantizeLinear` and `DequantizeLinear`.

use planish_ir::{DataType, Tensor};

use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

#[test]
fn codes_round_to_even_and_saturate() {
    let x = Tensor::from_vec(&[5], vec![0.5f32, 1.5, 300.0, -1.0, 2.4]);
    let (scale, zero) = (Tensor::scalar(1.0f32), Tensor::scalar(1u8));
    let out = Case::new("", "QuantizeLinear", 21).eval(&present(&[&x, &scale, &zero]));
    assert_eq!(out[0].to_i64_vec().unwrap(), [1, 3, 255, 0, 3]);
    let back = Case::new("", "DequantizeLinear", 21).eval(&present(&[&out[0], &scale, &zero]));
    assert_eq!(back[0].to_f32_vec().unwrap(), [0.0, 2.0, 254.0, -1.0, 2.0]);
}

#[test]
fn blocks_have_scales_of_their_own() {
    let codes = Tensor::from_int4_codes(&[4, 2], &[1, 2, 3, 4, -5, -6, -7, -8]);
    let scale = Tensor::from_vec(&[2, 2], vec![1.0f32, 10.0, 2.0, 20.0]);
    let case = Case::new("", "DequantizeLinear", 21).with("axis", 0i64).with("block_size", 2i64);
    let out = case.eval(&present(&[&codes, &scale]));
    let expected = [1.0, 20.0, 3.0, 40.0, -10.0, -120.0, -14.0, -160.0];
    assert_eq!(out[0].to_f32_vec().unwrap(), expected);
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(81);
    let x = random.tensor(&[3, 8, 4]);
    let positive = |random: &mut Random, shape: &[usize]| {
        let values = random.tensor(shape).to_f32_vec().unwrap();
        Tensor::from_vec(shape, values.iter().map(|v| 0.01 + v.abs() * 0.05).collect())
    };
    let one = Tensor::scalar(0.02f32);
    let (rows, blocks) = (positive(&mut random, &[8]), positive(&mut random, &[3, 4, 4]));
    let zero = random.codes(&[8], -5, 5);
    let quantize = |axis: i64| Case::new("", "QuantizeLinear", 21).with("axis", axis);
    let dequantize = |axis: i64| Case::new("", "DequantizeLinear", 21).with("axis", axis);
    let int4 = i64::from(DataType::I4.to_onnx());
    let codes = random.codes(&[3, 8, 4], -128, 127);
    let nibbles = random.int4(&[3, 8, 4]);
    let questions = [
        Question::new(quantize(1), present(&[&x, &one])),
        Question::new(quantize(1), present(&[&x, &rows, &zero])),
        Question::new(quantize(-2).with("block_size", 2i64), present(&[&x, &blocks])),
        Question::new(dequantize(1), present(&[&codes, &one])),
        Question::new(dequantize(1), present(&[&codes, &rows, &zero])),
        Question::new(dequantize(1).with("block_size", 2i64), present(&[&nibbles, &blocks])),
    ];
    assert_agree(&questions, 1e-6);
    let quantised = quantize(1).with("output_dtype", int4).eval(&present(&[&x, &rows]));
    assert_eq!(quantised[0].dtype(), DataType::I4);
}
