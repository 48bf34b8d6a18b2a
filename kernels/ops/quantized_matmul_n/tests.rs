//! Tests of `QuantizedMatMulN`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::testing::*;

#[test]
fn it_is_several_products_and_the_kernel_agrees() {
    let mut random = Random::new(75);
    for (rows, block_size) in [(1usize, 0usize), (6, 0), (1, 32), (40, 32)] {
        let codes = random.codes(&[1, rows, 64], -8, 7);
        let a_scale = random.tensor(&[1, rows, 1]);
        let mut inputs = present(&[&codes, &a_scale]);
        for n in [48, 20, 33] {
            let scale = if block_size > 0 { vec![2, n] } else { vec![n] };
            inputs.extend([Some(random.int4(&[64, n])), Some(random.tensor(&scale))]);
        }
        let case = Case::new(DOMAIN, "QuantizedMatMulN", 1).with("block_size", block_size as i64);
        let case = case.outputs(3);
        let name = if block_size > 0 { "BlockQuantizedMatMul" } else { "QuantizedMatMul" };
        let single = Case::new(DOMAIN, name, 1).with("block_size", block_size as i64);
        let expected: Vec<Tensor> = (0..3)
            .map(|i| {
                let pair = [2 + 2 * i, 3 + 2 * i].map(|i| inputs[i].clone());
                single.eval(&[&inputs[..2], &pair].concat()).remove(0)
            })
            .collect();
        assert_eq!(case.eval(&inputs), expected);
        case.assert_kernel_agrees(&inputs, &[2, 3, 4, 5, 6, 7], 1e-5);
    }
}

/// As many as read one norm where attention and MLP stand side by side: more than one launch takes.
#[test]
fn five_products_are_taken_too() {
    let mut random = Random::new(76);
    for rows in [1, 70] {
        let mut inputs = present(&[&random.codes(&[1, rows, 64], -8, 7)]);
        inputs.push(Some(random.tensor(&[1, rows, 1])));
        for n in [32, 16, 16, 64, 64] {
            inputs.extend([Some(random.int4(&[64, n])), Some(random.tensor(&[n]))]);
        }
        let constants: Vec<usize> = (2..12).collect();
        let case = Case::new(DOMAIN, "QuantizedMatMulN", 1).outputs(5);
        case.assert_kernel_agrees(&inputs, &constants, 1e-5);
    }
}

#[test]
fn a_weight_without_scale_is_refused() {
    let case = Case::new(DOMAIN, "QuantizedMatMulN", 1);
    assert!(case.infer(&[fact(&["b", "8"]), fact(&["b", "1"]), fact(&["8", "8"])]).is_err());
}
