//! Tests of `QuantizedMatMulAdd`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::testing::*;

#[test]
fn it_is_the_product_and_a_sum() {
    let mut random = Random::new(5);
    let (rows, k, n) = (3, 64, 20);
    let codes = random.codes(&[1, rows, k], -8, 7);
    let a_scale = random.tensor(&[1, rows, 1]);
    let w = random.int4(&[k, n]);
    let residual = random.tensor(&[1, rows, n]);
    for (name, block_size) in [("QuantizedMatMul", 0i64), ("BlockQuantizedMatMul", 32)] {
        let w_scale = match block_size {
            0 => random.tensor(&[n]),
            size => random.tensor(&[k / size as usize, n]),
        };
        let inputs = present(&[&codes, &a_scale, &w, &w_scale, &residual]);
        let product = Case::new(DOMAIN, name, 1).with("block_size", block_size);
        let product = product.eval(&inputs[..4]).remove(0).to_f32_vec().unwrap();
        let sum = product.iter().zip(residual.to_f32_vec().unwrap()).map(|(a, b)| a + b);
        let expected = Tensor::from_vec(&[1, rows, n], sum.collect());
        let fused = Case::new(DOMAIN, "QuantizedMatMulAdd", 1).with("block_size", block_size);
        assert_close(&fused.eval(&inputs)[0], &expected, 0.0);
    }
}

#[test]
fn a_residual_of_another_shape_is_refused() {
    let mut random = Random::new(6);
    let case = Case::new(DOMAIN, "QuantizedMatMulAdd", 1);
    let inputs = present(&[
        &random.codes(&[1, 2, 8], -8, 7),
        &random.tensor(&[1, 2, 1]),
        &random.int4(&[8, 4]),
        &random.tensor(&[4]),
        &random.tensor(&[1, 1, 4]),
    ]);
    let error = (case.op().eval)(&case.view(), &inputs).unwrap_err().to_string();
    assert!(error.contains("residual"), "{error}");
}
