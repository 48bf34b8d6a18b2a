//! Tests of the skip normalisations.

use planish_ir::Tensor;

use crate::MICROSOFT;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn sum(terms: &[&Tensor]) -> Tensor {
    let mut all = vec![0.0; terms[0].n_elements()];
    for term in terms {
        let term = term.to_f32_vec().unwrap();
        all.iter_mut().enumerate().for_each(|(i, v)| *v += term[i % term.len()]);
    }
    Tensor::from_vec(terms[0].shape(), all)
}

#[test]
fn the_sum_is_normalised_and_given() {
    let mut random = Random::new(7);
    let (x, skip) = (random.tensor(&[2, 3, 8]), random.tensor(&[2, 3, 8]));
    let (scale, bias) = (random.tensor(&[8]), random.tensor(&[8]));
    let case = Case::new(MICROSOFT, "SkipSimplifiedLayerNormalization", 1)
        .with("epsilon", 1e-5f32)
        .outputs(4);
    let plain = Case::new("", "RMSNormalization", 23);
    for bias in [None, Some(&bias)] {
        let mut inputs = present(&[&x, &skip, &scale]);
        inputs.push(bias.cloned());
        let terms: Vec<&Tensor> = [&x, &skip].into_iter().chain(bias).collect();
        let out = case.eval(&inputs);
        assert_close(&out[3], &sum(&terms), 1e-7);
        let expected = plain.eval(&present(&[&out[3], &scale]));
        assert_close(&out[0], &expected[0], 1e-6);
    }
}

#[test]
fn the_full_form_subtracts_the_mean() {
    let mut random = Random::new(8);
    let (x, skip) = (random.tensor(&[1, 2, 4]), random.tensor(&[1, 2, 4]));
    let (scale, beta, bias) = (random.tensor(&[4]), random.tensor(&[4]), random.tensor(&[4]));
    let case =
        Case::new(MICROSOFT, "SkipLayerNormalization", 1).with("epsilon", 1e-5f32).outputs(4);
    let out = case.eval(&present(&[&x, &skip, &scale, &beta, &bias]));
    let total = sum(&[&x, &skip, &bias]);
    let plain = Case::new("", "LayerNormalization", 17).outputs(3);
    let expected = plain.eval(&present(&[&total, &scale, &beta]));
    for (index, other) in [(0, 0), (1, 1), (2, 2)] {
        assert_close(&out[index], &expected[other], 1e-6);
    }
    assert_close(&out[3], &total, 1e-7);
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(43);
    let (x, skip) = (random.tensor(&[2, 3, 64]), random.tensor(&[2, 3, 64]));
    let (scale, bias) = (random.tensor(&[64]), random.tensor(&[64]));
    let simplified =
        || Case::new(MICROSOFT, "SkipSimplifiedLayerNormalization", 1).with("epsilon", 1e-5f32);
    let full = || Case::new(MICROSOFT, "SkipLayerNormalization", 1).with("epsilon", 1e-5f32);
    let mut questions = vec![
        Question::new(simplified(), present(&[&x, &skip, &scale])),
        Question::new(simplified(), present(&[&x, &skip, &scale, &bias])).constants(&[2, 3]),
        Question::new(full(), present(&[&x, &skip, &scale])),
        Question::new(full(), present(&[&x, &skip, &scale, &bias, &bias])),
    ];
    questions.iter_mut().for_each(Question::ask_for_sum);
    assert_agree(&questions, 1e-6);
}
