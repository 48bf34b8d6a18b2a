//! Tests of `CachedAttention`.

use planish_cpu::ThreadPool;
use planish_ir::Tensor;

use crate::buffers::BufferPool;
use crate::ops::support::testing::*;
use crate::{CpuContext, DOMAIN};

fn case() -> Case {
    Case::new(DOMAIN, "CachedAttention", 1)
        .with("q_num_heads", 4i64)
        .with("kv_num_heads", 2i64)
        .with("layer", 1i64)
}

/// Positions `range` of every sequence.
fn positions(t: &Tensor, range: std::ops::Range<usize>) -> Tensor {
    let (b, s, n) = (t.shape()[0], t.shape()[1], t.shape()[2]);
    let x = t.to_f32_vec().unwrap();
    let rows = |i: usize| x[(i * s + range.start) * n..(i * s + range.end) * n].to_vec();
    Tensor::from_vec(&[b, range.len(), n], (0..b).flat_map(rows).collect())
}

#[test]
fn an_empty_cache_makes_it_plain_attention() {
    let mut random = Random::new(63);
    let (q, k, v) =
        (random.tensor(&[2, 5, 64]), random.tensor(&[2, 5, 32]), random.tensor(&[2, 5, 32]));
    let inputs = present(&[&q, &k, &v]);
    let attention = Case::new("", "Attention", 23)
        .with("q_num_heads", 4i64)
        .with("kv_num_heads", 2i64)
        .with("is_causal", 1i64)
        .with("softcap", 3.0f32);
    let case = case().with("softcap", 3.0f32);
    assert_close(&case.eval(&inputs)[0], &attention.eval(&inputs)[0], 0.0);
    case.assert_kernel_agrees(&inputs, &[], 1e-5);
}

#[test]
fn token_by_token_is_the_same_as_all_at_once() {
    let mut random = Random::new(64);
    let (q, k, v) =
        (random.tensor(&[2, 9, 64]), random.tensor(&[2, 9, 32]), random.tensor(&[2, 9, 32]));
    let seen: Vec<bool> = (0..18).map(|i| i >= 9 || i >= 2).collect();
    let mask = |total: usize| {
        let row = |b: usize| seen[b * 9..b * 9 + total].to_vec();
        Some(Tensor::from_bools(&[2, total], &[row(0), row(1)].concat()))
    };
    for (kv_bits, window) in [(32i64, 0i64), (8, 0), (4, 0), (32, 4), (4, 3)] {
        let case =
            case().with("kv_bits", kv_bits).with("window", window).with("key_clip_max", 0.9f32);
        let mut inputs = present(&[&q, &k, &v]);
        inputs.push(mask(9));
        let whole = case.eval(&inputs).remove(0);
        let pool = ThreadPool::new(2);
        let (buffers, mut caches) = (BufferPool::new(), Vec::new());
        let mut context = CpuContext::new(&pool, &buffers, &mut caches);
        let mut done = 0;
        for next in [4, 5, 6, 9] {
            let part = |t| positions(t, done..next);
            let mut inputs = present(&[&part(&q), &part(&k), &part(&v)]);
            inputs.push(mask(next));
            let out = case.run_cpu_in(&mut context, &inputs, &[]).unwrap();
            assert_close(&out[0], &part(&whole), 1e-4);
            done = next;
        }
        assert_eq!((caches.len(), caches[1].len(), caches[1][0].len()), (2, 2, 9));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let x = fact(&["b", "s", "64"]);
    let inputs = [x.clone(), x.clone(), x];
    assert!(case().with("kv_bits", 5i64).infer(&inputs).is_err());
    assert!(case().with("kv_num_heads", 0i64).infer(&inputs).is_err());
    assert!(case().infer(&inputs[..2]).is_err());
}
