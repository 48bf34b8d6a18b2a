//! Tests of the rotary embeddings.

use planish_ir::Tensor;

use crate::MICROSOFT;
use crate::ops::support::gradient::{by_differences, by_rule};
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

/// Caches of 16 positions for heads of 4 channels.
fn caches() -> (Tensor, Tensor) {
    let angle = |i: usize| (i / 2) as f32 * [1.0, 0.01][i % 2];
    let cache =
        |f: fn(f32) -> f32| Tensor::from_vec(&[16, 2], (0..32).map(|i| f(angle(i))).collect());
    (cache(f32::cos), cache(f32::sin))
}

#[test]
fn a_quarter_turn() {
    let x = Tensor::from_vec(&[1, 1, 4], vec![1.0f32, 2.0, 3.0, 4.0]);
    let cos = Tensor::from_vec(&[1, 1, 2], vec![0.0f32, 1.0]);
    let sin = Tensor::from_vec(&[1, 1, 2], vec![1.0f32, 0.0]);
    let case = Case::new("", "RotaryEmbedding", 23).with("num_heads", 1i64);
    let out = case.eval(&present(&[&x, &cos, &sin]));
    assert_eq!(out[0].to_f32_vec().unwrap(), [-3.0, 2.0, 1.0, 4.0]);
    let out = case.with("interleaved", 1i64).eval(&present(&[&x, &cos, &sin]));
    assert_eq!(out[0].to_f32_vec().unwrap(), [-2.0, 1.0, 3.0, 4.0]);
}

#[test]
fn layouts_and_domains_agree() {
    let (cos, sin) = caches();
    let x = Random::new(9).tensor(&[2, 3, 8]);
    let ids = Tensor::from_vec(&[2, 3], vec![4i64, 5, 6, 0, 1, 15]);
    let case = Case::new("", "RotaryEmbedding", 23).with("num_heads", 2i64);
    let three = case.eval(&present(&[&x, &cos, &sin, &ids]));
    let microsoft = Case::new(MICROSOFT, "RotaryEmbedding", 1);
    let other = microsoft.eval(&present(&[&x, &ids, &cos, &sin]));
    assert_close(&three[0], &other[0], 0.0);
    // One head of the 4-D layout.
    let values = x.to_f32_vec().unwrap();
    let head = (0..24).map(|i| values[i / 4 * 8 + 4 + i % 4]).collect();
    let head = Tensor::from_vec(&[2, 1, 3, 4], head);
    let four = Case::new("", "RotaryEmbedding", 23).eval(&present(&[&head, &cos, &sin, &ids]));
    let all = three[0].to_f32_vec().unwrap();
    let expected = (0..24).map(|i| all[i / 4 * 8 + 4 + i % 4]).collect();
    assert_close(&four[0], &Tensor::from_vec(&[2, 1, 3, 4], expected), 0.0);
}

#[test]
fn one_id_is_the_first_position() {
    let (cos, sin) = caches();
    let x = Random::new(10).tensor(&[1, 3, 8]);
    let case = Case::new(MICROSOFT, "RotaryEmbedding", 1);
    let first = Tensor::from_vec(&[1], vec![7i64]);
    let ids = Tensor::from_vec(&[1, 3], vec![7i64, 8, 9]);
    let out = case.eval(&present(&[&x, &first, &cos, &sin]));
    assert_close(&out[0], &case.eval(&present(&[&x, &ids, &cos, &sin]))[0], 0.0);
}

#[test]
fn the_rest_of_a_partly_rotated_head_stays() {
    let (cos, sin) = caches();
    let x = Random::new(11).tensor(&[1, 2, 12]);
    let ids = Tensor::from_vec(&[1, 2], vec![1i64, 2]);
    let case = Case::new("", "RotaryEmbedding", 23)
        .with("num_heads", 2i64)
        .with("rotary_embedding_dim", 4i64);
    let out = case.eval(&present(&[&x, &cos, &sin, &ids]))[0].to_f32_vec().unwrap();
    let x = x.to_f32_vec().unwrap();
    assert_eq!(out[4..6], x[4..6]);
    assert_eq!(out[22..24], x[22..24]);
    assert_ne!(out[0..4], x[0..4]);
}

#[test]
fn a_position_outside_the_caches_is_an_error() {
    let (cos, sin) = caches();
    let x = Random::new(12).tensor(&[1, 1, 4]);
    let ids = Tensor::from_vec(&[1, 1], vec![16i64]);
    let case = Case::new("", "RotaryEmbedding", 23).with("num_heads", 1i64);
    let op = crate::ops::find("", "RotaryEmbedding").unwrap();
    assert!((op.eval)(&case.view(), &present(&[&x, &cos, &sin, &ids])).is_err());
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(49);
    let tables =
        |random: &mut Random, shape: &[usize]| [random.tensor(shape), random.tensor(shape)];
    let [cos, sin] = tables(&mut random, &[16, 8]);
    let x = random.tensor(&[2, 3, 64]);
    let four = random.tensor(&[2, 4, 3, 16]);
    let ids = Tensor::from_vec(&[2, 3], vec![4i64, 5, 6, 0, 1, 15]);
    let case = |n_heads: i64| Case::new("", "RotaryEmbedding", 23).with("num_heads", n_heads);
    let mut questions = vec![
        Question::new(case(4), present(&[&x, &cos, &sin, &ids])),
        Question::new(case(4).with("interleaved", 1i64), present(&[&x, &cos, &sin, &ids])),
        Question::new(case(0), present(&[&four, &cos, &sin, &ids])),
    ];
    let [cos3, sin3] = tables(&mut random, &[2, 3, 8]);
    questions.push(Question::new(case(4), present(&[&x, &cos3, &sin3])));
    questions.push(Question::new(case(0), present(&[&four, &cos3, &sin3])));
    let [cos_part, sin_part] = tables(&mut random, &[16, 4]);
    let partial = case(4).with("rotary_embedding_dim", 8i64);
    questions.push(Question::new(partial, present(&[&x, &cos_part, &sin_part, &ids])));
    let microsoft = || Case::new(MICROSOFT, "RotaryEmbedding", 1);
    let first = Tensor::from_vec(&[1], vec![3i64]);
    for ids in [&ids, &first] {
        questions.push(Question::new(microsoft(), present(&[&x, ids, &cos, &sin])));
        questions.push(Question::new(microsoft(), present(&[&four, ids, &cos, &sin])));
    }
    assert_agree(&questions, 1e-6);
}

#[test]
fn the_gradient_is_turned_back() {
    let (cos, sin) = caches();
    let mut random = Random::new(13);
    let (three, four) = (random.tensor(&[2, 3, 12]), random.tensor(&[2, 2, 3, 4]));
    let ids = Tensor::from_vec(&[2, 3], vec![4i64, 5, 6, 0, 1, 15]);
    let [cos3, sin3] =
        [&cos, &sin].map(|t| Tensor::from_vec(&[2, 3, 2], t.to_f32_vec().unwrap()[8..20].to_vec()));
    let case = |n_heads: i64| Case::new("", "RotaryEmbedding", 23).with("num_heads", n_heads);
    let partial = |n_heads| case(n_heads).with("rotary_embedding_dim", 4i64);
    let questions = [
        (case(3), present(&[&three, &cos, &sin, &ids])),
        (case(3), present(&[&three, &cos3, &sin3])),
        (case(0), present(&[&four, &cos3, &sin3])),
        (partial(2), present(&[&three, &cos, &sin, &ids])),
        (partial(1).with("interleaved", 1i64), present(&[&three, &cos3, &sin3])),
        (case(0).with("interleaved", 1i64), present(&[&four, &cos, &sin, &ids])),
    ];
    for (case, inputs) in questions {
        let dy = random.tensor(inputs[0].as_ref().unwrap().shape());
        let gradients = by_rule(&case, &inputs, &[Some(dy.clone())], &[0]).unwrap();
        let expected = by_differences(&case, &inputs, &dy, 0);
        assert_close(gradients[0].as_ref().unwrap(), &expected, 1e-5);
        assert_eq!(gradients[1..], vec![None; inputs.len() - 1]);
    }
}

#[test]
fn tables_have_no_gradient() {
    let (cos, sin) = caches();
    let x = Random::new(14).tensor(&[1, 16, 4]);
    let case = Case::new("", "RotaryEmbedding", 23).with("num_heads", 1i64);
    let cos = cos.reshaped(vec![1, 16, 2]).unwrap();
    let sin = sin.reshaped(vec![1, 16, 2]).unwrap();
    let error = by_rule(&case, &present(&[&x, &cos, &sin]), &[Some(x.clone())], &[0, 2]);
    assert!(error.unwrap_err().to_string().contains("cosines and sines"));
}
