//! Tests of `WeightOnlyMatMul`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::testing::*;

fn case(trans_b: i64, block_size: i64) -> Case {
    let case = Case::new(DOMAIN, "WeightOnlyMatMul", 1);
    case.with("trans_b", trans_b).with("block_size", block_size)
}

#[test]
fn a_hand_made_case() {
    let x = Tensor::from_vec(&[1, 2], vec![1.0f32, 0.5]);
    let w = Tensor::from_vec(&[2, 2], vec![1i8, 2, 4, -6]);
    let scale = Tensor::from_vec(&[2], vec![10.0f32, 1.0]);
    let out = case(0, 0).eval(&present(&[&x, &w, &scale]));
    assert_eq!(out[0].to_f32_vec().unwrap(), [30.0, -1.0]);
    let scale = Tensor::from_vec(&[2, 2], vec![10.0f32, 1.0, 1.0, 2.0]);
    let out = case(1, 1).eval(&present(&[&x, &w, &scale]));
    assert_eq!(out[0].to_f32_vec().unwrap(), [11.0, -2.0]);
}

#[test]
fn the_kernel_agrees() {
    let mut random = Random::new(62);
    for rows in [1, 4, 20] {
        let (x, bias) = (random.tensor(&[1, rows, 128]), random.tensor(&[40]));
        for (trans_b, shape) in [(0, [128, 40]), (1, [40, 128])] {
            for (size, scales) in [(0, vec![40]), (32, vec![4, 40])] {
                for w in [random.int4(&shape), random.codes(&shape, -127, 127)] {
                    let scale = random.tensor(&scales);
                    let case = case(trans_b, size);
                    let inputs = present(&[&x, &w, &scale]);
                    case.assert_kernel_agrees(&inputs, &[1, 2], 1e-4);
                    let inputs = present(&[&x, &w, &scale, &bias]);
                    case.assert_kernel_agrees(&inputs, &[1, 2, 3], 1e-4);
                }
            }
        }
    }
}
