//! Tests of `Linear`.

use crate::DOMAIN;
use crate::ops::support::testing::*;

fn case(trans_b: i64) -> Case {
    Case::new(DOMAIN, "Linear", 1).with("trans_b", trans_b)
}

#[test]
fn it_is_a_product_and_a_sum() {
    let mut random = Random::new(60);
    let (x, w, bias) = (random.tensor(&[6, 16]), random.tensor(&[16, 5]), random.tensor(&[5]));
    let gemm = Case::new("", "Gemm", 13);
    let expected = gemm.eval(&present(&[&x, &w, &bias]));
    assert_close(&case(0).eval(&present(&[&x, &w, &bias]))[0], &expected[0], 1e-6);
    let transposed = random.tensor(&[5, 16]);
    let gemm = Case::new("", "Gemm", 13).with("transB", 1i64);
    let expected = gemm.eval(&present(&[&x, &transposed]));
    assert_close(&case(1).eval(&present(&[&x, &transposed]))[0], &expected[0], 1e-6);
}

#[test]
fn the_kernel_agrees() {
    let mut random = Random::new(61);
    for rows in [1, 3, 30] {
        let (x, bias) = (random.tensor(&[2, rows, 100]), random.tensor(&[70]));
        for (trans_b, shape) in [(0, [100, 70]), (1, [70, 100])] {
            let w = random.tensor(&shape);
            case(trans_b).assert_kernel_agrees(&present(&[&x, &w]), &[1], 1e-5);
            case(trans_b).assert_kernel_agrees(&present(&[&x, &w, &bias]), &[1, 2], 1e-5);
            case(trans_b).assert_kernel_agrees(&present(&[&x, &w, &bias]), &[], 1e-5);
        }
    }
}

#[test]
fn symbolic_shapes_are_exact() {
    let inputs = [fact(&["b", "s", "64"]), fact(&["32", "64"])];
    assert_eq!(case(1).infer(&inputs).unwrap(), [fact(&["b", "s", "32"])]);
    assert!(case(0).infer(&inputs).is_err());
}
