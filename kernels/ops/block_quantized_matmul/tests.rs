//! Tests of `BlockQuantizedMatMul`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case(block_size: i64) -> Case {
    Case::new(DOMAIN, "BlockQuantizedMatMul", 1).with("block_size", block_size)
}

#[test]
fn one_block_is_the_plain_product() {
    let mut random = Random::new(25);
    let codes = random.codes(&[2, 3, 32], -8, 7);
    let (a_scale, w, w_scale) =
        (random.tensor(&[2, 3, 1]), random.int4(&[32, 5]), random.tensor(&[5]));
    let plain = Case::new(DOMAIN, "QuantizedMatMul", 1);
    let expected = plain.eval(&present(&[&codes, &a_scale, &w, &w_scale]));
    let blocked = w_scale.reshaped(vec![1, 5]).unwrap();
    let out = case(32).eval(&present(&[&codes, &a_scale, &w, &blocked]));
    assert_close(&out[0], &expected[0], 0.0);
}

#[test]
fn each_block_has_its_scale() {
    let codes = Tensor::from_vec(&[1, 4], vec![1i8, 2, 3, 4]);
    let a_scale = Tensor::from_vec(&[1, 1], vec![2.0f32]);
    let w = Tensor::from_vec(&[4, 1], vec![1i8, 1, 1, -1]);
    let w_scale = Tensor::from_vec(&[2, 1], vec![10.0f32, 0.5]);
    let out = case(2).eval(&present(&[&codes, &a_scale, &w, &w_scale]));
    assert_eq!(out[0].to_f32_vec().unwrap(), [59.0]);
}

#[test]
fn the_kernel_agrees() {
    let mut random = Random::new(26);
    for (rows, k, n, size) in [(1, 64, 48, 32), (20, 128, 40, 64), (3, 96, 17, 32)] {
        let codes = random.codes(&[1, rows, k], -8, 7);
        let (a_scale, w_scale) = (random.tensor(&[1, rows, 1]), random.tensor(&[k / size, n]));
        let w = random.int4(&[k, n]);
        let inputs = present(&[&codes, &a_scale, &w, &w_scale]);
        case(size as i64).assert_kernel_agrees(&inputs, &[2, 3], 1e-5);
    }
}

#[test]
fn blocks_must_cover_the_weight() {
    let mut inputs =
        [fact(&["b", "64"]), fact(&["b", "1"]), fact(&["64", "32"]), fact(&["2", "32"])];
    inputs[0].dtype = Some(planish_ir::DataType::I8);
    inputs[2].dtype = Some(planish_ir::DataType::I4);
    assert!(case(32).infer(&inputs).is_ok());
    assert!(case(16).infer(&inputs).is_err());
    assert!(case(0).infer(&inputs).is_err());
}

#[test]
fn the_function_body_agrees() {
    let mut random = Random::new(34);
    let mut questions = Vec::new();
    for (rows, k, n, size) in [(1, 64, 48, 32), (20, 128, 40, 64), (3, 96, 17, 32)] {
        let codes = random.codes(&[2, rows, k], -8, 7);
        let (a_scale, w_scale) = (random.tensor(&[2, rows, 1]), random.tensor(&[k / size, n]));
        for w in [random.int4(&[k, n]), random.codes(&[k, n], -127, 127)] {
            let inputs = present(&[&codes, &a_scale, &w, &w_scale]);
            questions.push(Question::new(case(size as i64), inputs).constants(&[2, 3]));
        }
    }
    assert_agree(&questions, 1e-5);
}
