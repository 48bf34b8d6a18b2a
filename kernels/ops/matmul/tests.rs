//! Tests of `MatMul`.

use planish_ir::Tensor;

use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    Case::new("", "MatMul", 13).eval(&present(&[a, b])).remove(0)
}

#[test]
fn two_matrices() {
    let a = Tensor::from_vec(&[2, 2], vec![1.0f32, 2.0, 3.0, 4.0]);
    let b = Tensor::from_vec(&[2, 1], vec![10.0f32, 1.0]);
    assert_close(&matmul(&a, &b), &Tensor::from_vec(&[2, 1], vec![12.0f32, 34.0]), 0.0);
}

#[test]
fn vectors_lose_their_axis() {
    let a = Tensor::from_vec(&[2], vec![1i64, 2]);
    let b = Tensor::from_vec(&[3, 2, 2], (0..12).collect::<Vec<i64>>());
    let out = matmul(&a, &b);
    assert_eq!(out.shape(), [3, 2]);
    assert_eq!(out.to_i64_vec().unwrap(), [4, 7, 16, 19, 28, 31]);
    assert_eq!(matmul(&a, &a).to_i64_vec().unwrap(), [5]);
}

#[test]
fn batches_broadcast() {
    let mut random = Random::new(4);
    let (a, b) = (random.tensor(&[2, 1, 3, 4]), random.tensor(&[5, 4, 2]));
    let out = matmul(&a, &b);
    assert_eq!(out.shape(), [2, 5, 3, 2]);
    let (a, b) = (a.to_f32_vec().unwrap(), b.to_f32_vec().unwrap());
    let expected = (0..60)
        .map(|i| {
            let (x, y, row, col) = (i / 30, i / 6 % 5, i / 2 % 3, i % 2);
            (0..4).map(|k| a[x * 12 + row * 4 + k] * b[y * 8 + k * 2 + col]).sum::<f32>()
        })
        .collect();
    assert_close(&out, &Tensor::from_vec(&[2, 5, 3, 2], expected), 1e-6);
}

#[test]
fn symbolic_shapes_are_exact() {
    let case = Case::new("", "MatMul", 13);
    let out = case.infer(&[fact(&["b", "s", "576"]), fact(&["576", "192"])]).unwrap();
    assert_eq!(out[0], fact(&["b", "s", "192"]));
    assert!(case.infer(&[fact(&["b", "s", "576"]), fact(&["575", "192"])]).is_err());
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(48);
    let mut questions = Vec::new();
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[2, 3, 32], &[32, 48]),
        (&[32], &[32, 5]),
        (&[4, 32], &[32]),
        (&[2, 1, 3, 8], &[5, 8, 6]),
        (&[1, 4, 7, 16], &[2, 4, 16, 9]),
        (&[16], &[16]),
    ];
    for (a, b) in shapes {
        let (a, b) = (random.tensor(a), random.tensor(b));
        let case = || Case::new("", "MatMul", 13);
        questions.push(Question::new(case(), present(&[&a, &b])));
        questions.push(Question::new(case(), present(&[&a, &b])).constants(&[1]));
    }
    assert_agree(&questions, 1e-6);
}
