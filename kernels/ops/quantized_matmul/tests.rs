//! Tests of `QuantizedMatMul`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case() -> Case {
    Case::new(DOMAIN, "QuantizedMatMul", 1)
}

#[test]
fn a_hand_made_case() {
    let codes = Tensor::from_vec(&[1, 1, 2], vec![3i8, -2]);
    let a_scale = Tensor::from_vec(&[1, 1, 1], vec![0.5f32]);
    let w = Tensor::from_int4_codes(&[2, 3], &[1, -8, 7, 2, 0, 1]);
    let w_scale = Tensor::from_vec(&[3], vec![1.0f32, 2.0, 4.0]);
    let out = case().eval(&present(&[&codes, &a_scale, &w, &w_scale]));
    let expected = Tensor::from_vec(&[1, 1, 3], vec![-0.5f32, -24.0, 38.0]);
    assert_close(&out[0], &expected, 0.0);
}

#[test]
fn the_kernel_agrees_for_both_widths() {
    let mut random = Random::new(24);
    for (rows, k, n) in [(1, 64, 48), (5, 100, 33), (40, 576, 64)] {
        let codes = random.codes(&[1, rows, k], -127, 127);
        let (a_scale, w_scale) = (random.tensor(&[1, rows, 1]), random.tensor(&[n]));
        for w in [random.int4(&[k, n]), random.codes(&[k, n], -127, 127)] {
            let inputs = present(&[&codes, &a_scale, &w, &w_scale]);
            case().assert_kernel_agrees(&inputs, &[2, 3], 1e-6);
        }
    }
}

#[test]
fn symbolic_shapes_are_exact() {
    let mut inputs =
        [fact(&["b", "s", "64"]), fact(&["b", "s", "1"]), fact(&["64", "32"]), fact(&["32"])];
    inputs[0].dtype = Some(planish_ir::DataType::I8);
    inputs[2].dtype = Some(planish_ir::DataType::I4);
    assert_eq!(case().infer(&inputs).unwrap(), [fact(&["b", "s", "32"])]);
    inputs[3] = fact(&["33"]);
    assert!(case().infer(&inputs).is_err());
}

#[test]
fn the_function_body_agrees() {
    let mut random = Random::new(33);
    let mut questions = Vec::new();
    for (rows, k, n) in [(1, 64, 48), (5, 100, 33), (40, 576, 64)] {
        let codes = random.codes(&[1, rows, k], -127, 127);
        let (a_scale, w_scale) = (random.tensor(&[1, rows, 1]), random.tensor(&[n]));
        for w in [random.int4(&[k, n]), random.codes(&[k, n], -127, 127)] {
            let inputs = present(&[&codes, &a_scale, &w, &w_scale]);
            questions.push(Question::new(case(), inputs).constants(&[2, 3]));
        }
    }
    assert_agree(&questions, 1e-6);
}
