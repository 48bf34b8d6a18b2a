//! Tests of `Attention`.

use planish_cpu::ThreadPool;
use planish_ir::{DataType, Tensor};

use crate::CpuContext;
use crate::buffers::BufferPool;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case() -> Case {
    Case::new("", "Attention", 24)
}

#[test]
fn weights_follow_the_scores() {
    // One head of one channel: scores 0 and ln 3, weights 1/4 and 3/4.
    let q = Tensor::from_vec(&[1, 1, 1, 1], vec![1.0f32]);
    let k = Tensor::from_vec(&[1, 1, 2, 1], vec![0.0f32, 3f32.ln()]);
    let v = Tensor::from_vec(&[1, 1, 2, 2], vec![4.0f32, 0.0, 0.0, 8.0]);
    let out = case().outputs(4).with("qk_matmul_output_mode", 3i64).eval(&present(&[&q, &k, &v]));
    assert_close(&out[0], &Tensor::from_vec(&[1, 1, 1, 2], vec![1.0f32, 6.0]), 1e-6);
    assert_close(&out[3], &Tensor::from_vec(&[1, 1, 1, 2], vec![0.25f32, 0.75]), 1e-6);
    assert_eq!((&out[1], &out[2]), (&k, &v));
}

#[test]
fn both_layouts_agree() {
    let mut random = Random::new(13);
    let (q, k, v) =
        (random.tensor(&[2, 3, 8]), random.tensor(&[2, 5, 4]), random.tensor(&[2, 5, 6]));
    let three = case().with("q_num_heads", 4i64).with("kv_num_heads", 2i64);
    let out = three.eval(&present(&[&q, &k, &v]));
    assert_eq!(out[0].shape(), [2, 3, 12]);
    let split = |t: &Tensor, heads: usize| {
        let (b, s, d) = (t.shape()[0], t.shape()[1], t.shape()[2] / heads);
        let x = t.to_f32_vec().unwrap();
        let at = |i: usize| {
            (i / d / s / heads * s + i / d % s) * heads * d + i / d / s % heads * d + i % d
        };
        Tensor::from_vec(&[b, heads, s, d], (0..x.len()).map(|i| x[at(i)]).collect())
    };
    let four = case().eval(&present(&[&split(&q, 4), &split(&k, 2), &split(&v, 2)]));
    assert_close(&split(&out[0], 4), &four[0], 0.0);
}

#[test]
fn a_past_is_the_same_as_longer_keys() {
    let mut random = Random::new(14);
    let (q, k, v) =
        (random.tensor(&[1, 2, 4, 8]), random.tensor(&[1, 1, 4, 8]), random.tensor(&[1, 1, 4, 8]));
    let causal = case().with("is_causal", 1i64).outputs(3);
    let whole = causal.eval(&present(&[&q, &k, &v]));
    let part = |t: &Tensor, rows: std::ops::Range<usize>| {
        let (heads, x) = (t.shape()[1], t.to_f32_vec().unwrap());
        let data =
            (0..heads).flat_map(|h| x[(h * 4 + rows.start) * 8..(h * 4 + rows.end) * 8].to_vec());
        Tensor::from_vec(&[1, heads, rows.len(), 8], data.collect())
    };
    let mut inputs = present(&[&part(&q, 1..4), &part(&k, 1..4), &part(&v, 1..4)]);
    inputs.extend([None, Some(part(&k, 0..1)), Some(part(&v, 0..1))]);
    let out = causal.eval(&inputs);
    assert_close(&out[0], &part(&whole[0], 1..4), 1e-6);
    assert_eq!(out[1], k);
}

#[test]
fn a_query_without_keys_gives_zeros() {
    let mut random = Random::new(15);
    let (q, k) = (random.tensor(&[1, 1, 2, 4]), random.tensor(&[1, 1, 3, 4]));
    let mask = Tensor::from_bools(&[2, 3], &[false, false, false, false, true, false]);
    let out = case().eval(&present(&[&q, &k, &k, &mask]));
    let (y, k) = (out[0].to_f32_vec().unwrap(), k.to_f32_vec().unwrap());
    assert_eq!(y[..4], [0.0; 4]);
    assert_eq!(y[4..], k[4..8]);
}

#[test]
fn windows_and_lengths_hide_keys() {
    let mut random = Random::new(16);
    let (q, k) = (random.tensor(&[1, 1, 2, 4]), random.tensor(&[1, 1, 5, 4]));
    let lengths = Tensor::from_vec(&[1], vec![4i64]);
    let mut inputs = present(&[&q, &k, &k]);
    inputs.extend([None, None, None, Some(lengths)]);
    let windowed = case().with("is_causal", 1i64).with("left_window_size", 1i64);
    windowed.assert_kernel_agrees(&inputs, &[], 1e-6);
    let windowed = windowed.eval(&inputs);
    // The queries stand at positions 2 and 3; each sees itself and the one before.
    let seen = [[false, true, true, false, false], [false, false, true, true, false]];
    let mask = Tensor::from_bools(&[1, 2, 5], &seen.concat());
    let masked = case().eval(&present(&[&q, &k, &k, &mask]));
    assert_close(&windowed[0], &masked[0], 1e-6);
}

#[test]
fn the_kernel_gives_present_keys_and_values() {
    let mut random = Random::new(17);
    let (q, kv) = (random.tensor(&[2, 3, 16]), random.tensor(&[2, 5, 8]));
    let three = case().with("q_num_heads", 4i64).with("kv_num_heads", 2i64).outputs(3);
    three.assert_kernel_agrees(&present(&[&q, &kv, &kv]), &[], 1e-6);
    let mut inputs = present(&[&q, &kv, &kv]);
    let past = random.tensor(&[2, 2, 70, 4]);
    inputs.extend([None, Some(past.clone()), Some(past)]);
    three.with("is_causal", 1i64).assert_kernel_agrees(&inputs, &[], 1e-6);
}

#[test]
fn symbolic_shapes_are_exact() {
    let q = fact(&["b", "s", "576"]);
    let kv = fact(&["b", "s", "192"]);
    let past = fact(&["b", "3", "past", "64"]);
    let case = case().with("q_num_heads", 9i64).with("kv_num_heads", 3i64).outputs(3);
    let inputs = [q.clone(), kv.clone(), kv, crate::Fact::absent(), past.clone(), past];
    let out = case.infer(&inputs).unwrap();
    assert_eq!(out[0], q);
    assert_eq!(out[1], fact(&["b", "3", "past + s", "64"]));
    assert_eq!(out[1].dtype, Some(DataType::F32));
}

#[test]
fn pasts_of_keys_and_values_go_together() {
    let mut random = Random::new(15);
    let (x, past, longer) =
        (random.tensor(&[1, 2, 4, 8]), random.tensor(&[1, 2, 3, 8]), random.tensor(&[1, 2, 5, 8]));
    let case = case().outputs(3);
    let mut inputs = present(&[&x, &x, &x]);
    inputs.extend([None, Some(past), Some(longer)]);
    let kernel = super::cpu::cpu(&case.view(), &[]).unwrap().unwrap();
    let (pool, buffers, mut caches) = (ThreadPool::new(1), BufferPool::new(), Vec::new());
    let mut context = CpuContext::new(&pool, &buffers, &mut caches);
    let given: Vec<_> = inputs.iter().map(Option::as_ref).collect();
    let error = kernel.run(&mut context, &given).expect_err("a refusal").to_string();
    assert!(error.contains("do not go together"), "{error}");
    let fact = fact(&["b", "2", "s", "8"]);
    let one = [fact.clone(), fact.clone(), fact.clone(), crate::Fact::absent(), fact];
    assert!(case.infer(&one).unwrap_err().to_string().contains("past_value"));
}

/// Random queries, keys and values of both layouts with masks, pasts and caps of all kinds.
#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(50);
    let mut questions = Vec::new();
    for n_past in [0usize, 3] {
        let total = n_past + 4;
        let (q, k, v) =
            (random.tensor(&[2, 4, 64]), random.tensor(&[2, 4, 32]), random.tensor(&[2, 4, 32]));
        let past = [random.tensor(&[2, 2, n_past, 16]), random.tensor(&[2, 2, n_past, 16])];
        let bools = |random: &mut Random, shape: &[usize]| {
            let n: usize = shape.iter().product();
            // The first key is always seen, so that no row is empty.
            let seen: Vec<bool> = (0..n).map(|i| i % total == 0 || random.int(0, 2) > 0).collect();
            Tensor::from_bools(shape, &seen)
        };
        let masks = [
            None,
            Some(random.tensor(&[4, total])),
            Some(bools(&mut random, &[4, total])),
            Some(bools(&mut random, &[2, 1, 4, total])),
            Some(random.tensor(&[2, 4, 4, total])),
        ];
        for (i, mask) in masks.into_iter().enumerate() {
            let mut case = Case::new("", "Attention", if i % 2 == 0 { 23 } else { 24 })
                .with("q_num_heads", 4i64)
                .with("kv_num_heads", 2i64)
                .with("is_causal", i64::from(i < 3))
                .with("softcap", if i == 1 { 2.0f32 } else { 0.0 });
            if i == 3 {
                case = case.with("scale", 0.1f32);
            }
            let mut inputs = present(&[&q, &k, &v]);
            inputs.push(mask);
            if n_past > 0 {
                inputs.extend(past.clone().map(Some));
                case = case.outputs(3);
            }
            questions.push(Question::new(case, inputs));
        }
    }
    let (q, kv) = (random.tensor(&[1, 6, 3, 8]), random.tensor(&[1, 2, 5, 8]));
    for mode in [0i64, 1, 3] {
        let case = Case::new("", "Attention", 23).with("qk_matmul_output_mode", mode);
        let mut question = Question::new(case.with("softcap", 1.5f32), present(&[&q, &kv, &kv]));
        question.ask_for(&[0, 3]);
        questions.push(question);
    }
    assert_agree(&questions, 1e-5);
}
