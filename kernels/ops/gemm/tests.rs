//! Tests of `Gemm`.

use planish_ir::Tensor;

use crate::MICROSOFT;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn transposed(t: &Tensor) -> Tensor {
    let (r, c) = (t.shape()[0], t.shape()[1]);
    let x = t.to_f32_vec().unwrap();
    Tensor::from_vec(&[c, r], (0..r * c).map(|i| x[i % r * c + i / r]).collect())
}

#[test]
fn all_forms_agree_with_matmul() {
    let mut random = Random::new(5);
    let (a, b, c) = (random.tensor(&[3, 4]), random.tensor(&[4, 2]), random.tensor(&[2]));
    let product = Case::new("", "MatMul", 13).eval(&present(&[&a, &b]))[0].to_f32_vec().unwrap();
    let bias = c.to_f32_vec().unwrap();
    let expected = product.iter().enumerate().map(|(i, v)| 0.5 * v + 2.0 * bias[i % 2]).collect();
    let expected = Tensor::from_vec(&[3, 2], expected);
    for (trans_a, trans_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let case = Case::new("", "Gemm", 13)
            .with("transA", trans_a)
            .with("transB", trans_b)
            .with("alpha", 0.5f32)
            .with("beta", 2.0f32);
        let a = if trans_a == 1 { transposed(&a) } else { a.clone() };
        let b = if trans_b == 1 { transposed(&b) } else { b.clone() };
        assert_close(&case.eval(&present(&[&a, &b, &c]))[0], &expected, 1e-6);
    }
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    let case = Case::new("", "Gemm", 13).with("transB", 1i64);
    let facts = [fact(&["s", "8"]), fact(&["4", "8"])];
    assert_eq!(case.infer(&facts).unwrap()[0], fact(&["s", "4"]));
    assert!(case.infer(&[fact(&["s", "8"]), fact(&["8", "4"])]).is_err());
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(47);
    let (a, b, c) = (random.tensor(&[5, 32]), random.tensor(&[48, 32]), random.tensor(&[48]));
    let case = || Case::new("", "Gemm", 13).with("transB", 1i64).with("beta", 0.5f32);
    let questions = [
        Question::new(case(), present(&[&a, &b, &c])).constants(&[1, 2]),
        Question::new(case(), present(&[&a, &b])),
        Question::new(case().with("alpha", 2.0f32), present(&[&a, &b, &c])),
    ];
    assert_agree(&questions, 1e-6);
}

#[test]
fn onnx_runtime_fuses_the_same_activations() {
    let mut random = Random::new(48);
    let (a, b, c) = (random.tensor(&[5, 32]), random.tensor(&[48, 32]), random.tensor(&[48]));
    let case = |activation: &str| {
        Case::new(MICROSOFT, "FusedGemm", 1).with("transB", 1i64).with("activation", activation)
    };
    let question = |activation| Question::new(case(activation), present(&[&a, &b, &c]));
    assert_agree(&["Relu", "Sigmoid", "Softsign", "Tanh"].map(question), 1e-6);
}
