//! Tests of `GatherBlockQuantized`.

use planish_ir::Tensor;

use crate::MICROSOFT;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case(bits: i64, block: i64) -> Case {
    Case::new(MICROSOFT, "GatherBlockQuantized", 1)
        .with("bits", bits)
        .with("block_size", block)
        .with("gather_axis", 0i64)
        .with("quantize_axis", 1i64)
}

fn bytes(random: &mut Random, shape: &[usize]) -> Tensor {
    let n = shape.iter().product();
    Tensor::from_vec(shape, (0..n).map(|_| random.int(0, 255) as u8).collect())
}

#[test]
fn the_first_code_is_in_the_low_bits() {
    let table = Tensor::from_vec(&[2, 1], vec![0x00u8, 0xF9]);
    let (ids, scale) =
        (Tensor::from_vec(&[1], vec![1i64]), Tensor::from_vec(&[2, 1], vec![1f32, 0.5]));
    let out = case(4, 16).eval(&present(&[&table, &ids, &scale]));
    assert_eq!(out[0].shape(), [1, 2]);
    assert_eq!(out[0].to_f32_vec().unwrap(), [0.5, 3.5]);
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(89);
    let mut questions = Vec::new();
    let ids = Tensor::from_vec(&[2, 2], vec![4i64, 0, 2, 2]);
    for (bits, block) in [(4usize, 16usize), (8, 32)] {
        let (n, width) = (5, 64);
        let blocks = width / block;
        let table = bytes(&mut random, &[n, width * bits / 8]);
        let scales = random.tensor(&[n, blocks]);
        let inputs = present(&[&table, &ids, &scales]);
        let case = || case(bits as i64, block as i64);
        questions.push(Question::new(case(), inputs.clone()).constants(&[0, 2]));
        let zeros = bytes(&mut random, &[n, blocks * bits / 8]);
        let inputs = [inputs, present(&[&zeros])].concat();
        questions.push(Question::new(case(), inputs).constants(&[0, 2, 3]));
    }
    assert_agree(&questions, 1e-6);
}
