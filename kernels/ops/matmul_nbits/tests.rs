//! Tests of `MatMulNBits`.

use planish_ir::Tensor;

use crate::MICROSOFT;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case(k: usize, n: usize, bits: i64, block: usize) -> Case {
    Case::new(MICROSOFT, "MatMulNBits", 1)
        .with("K", k as i64)
        .with("N", n as i64)
        .with("bits", bits)
        .with("block_size", block as i64)
}

fn bytes(random: &mut Random, shape: &[usize]) -> Tensor {
    let n = shape.iter().product();
    Tensor::from_vec(shape, (0..n).map(|_| random.int(0, 255) as u8).collect())
}

#[test]
fn a_hand_made_case() {
    // Two columns of one block: codes 9, 8, 7 and 8 less 8, and 0, 15, 8, 8 less 8.
    let weight = Tensor::from_vec(&[2, 1, 2], vec![0x89u8, 0x87, 0xF0, 0x88]);
    let scales = Tensor::from_vec(&[2, 1], vec![1.0f32, 0.5]);
    let x = Tensor::from_vec(&[1, 4], vec![1.0f32, 2.0, 3.0, 4.0]);
    let out = case(4, 2, 4, 4).eval(&present(&[&x, &weight, &scales]));
    assert_eq!(out[0].to_f32_vec().unwrap(), [-2.0, 3.0]);
}

#[test]
fn products_in_f16_agree_with_onnx_runtime() {
    let mut random = Random::new(84);
    let half = |t: Tensor| {
        let data = t.to_f32_vec().unwrap().into_iter().map(half::f16::from_f32).collect();
        Tensor::from_vec(t.shape(), data)
    };
    let (k, n) = (48, 24);
    let x = half(random.tensor(&[1, 3, k]));
    let weight = bytes(&mut random, &[n, 2, 16]);
    let scales = half(random.tensor(&[n, 2]));
    let inputs = present(&[&x, &weight, &scales]);
    let question = Question::new(case(k, n, 4, 32), inputs).constants(&[1, 2]);
    assert_agree(&[question], 2e-3);
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(83);
    let mut questions = Vec::new();
    for (bits, block) in [(4usize, 32usize), (8, 32), (4, 16)] {
        for k in [64, 96] {
            let (n, blocks) = (24, k / block);
            let x = random.tensor(&[1, 3, k]);
            let weight = bytes(&mut random, &[n, blocks, block * bits / 8]);
            let scales = random.tensor(&[n, blocks]);
            let inputs = present(&[&x, &weight, &scales]);
            let case = || case(k, n, bits as i64, block);
            questions.push(Question::new(case(), inputs.clone()).constants(&[1, 2]));
            let zeros = bytes(&mut random, &[n, (blocks * bits).div_ceil(8)]);
            let inputs = [inputs, present(&[&zeros])].concat();
            questions.push(Question::new(case(), inputs).constants(&[1, 2, 3]));
        }
    }
    assert_agree(&questions, 1e-4);
}
