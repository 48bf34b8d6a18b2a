//! Tests of `RotaryCachedAttention`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::testing::*;

#[test]
fn it_is_its_parts_one_after_the_other() {
    let mut random = Random::new(8);
    let (b, s, d) = (2, 5, 16);
    let (q, k, v) = (
        random.tensor(&[b, s, 4 * d]),
        random.tensor(&[b, s, 2 * d]),
        random.tensor(&[b, s, 2 * d]),
    );
    let angles: Vec<f32> = (0..s * d / 2).map(|_| 3.0 * random.unit()).collect();
    let of = |f: fn(f32) -> f32| {
        Tensor::from_vec(&[1, s, d / 2], angles.iter().map(|x| f(*x)).collect())
    };
    let (cos, sin) = (of(f32::cos), of(f32::sin));
    let p = random.tensor(&[d, d]);
    for (kv_bits, interleaved, with_p) in
        [(32i64, 0i64, false), (4, 0, true), (8, 1, true), (32, 1, true)]
    {
        let rotated = |x: &Tensor, heads: i64| {
            let case = Case::new("", "RotaryEmbedding", 23)
                .with("num_heads", heads)
                .with("interleaved", interleaved);
            let y = case.eval(&present(&[x, &cos, &sin])).remove(0);
            let transform = Case::new(DOMAIN, "TransformHeads", 1);
            if with_p { transform.eval(&present(&[&y, &p])).remove(0) } else { y }
        };
        let attention = |name| {
            Case::new(DOMAIN, name, 1)
                .with("q_num_heads", 4i64)
                .with("kv_num_heads", 2i64)
                .with("kv_bits", kv_bits)
                .with("value_clip_max", 0.95f32)
                .with("interleaved", interleaved)
        };
        let parts = present(&[&rotated(&q, 4), &rotated(&k, 2), &v]);
        let expected = attention("CachedAttention").eval(&parts).remove(0);
        let p = with_p.then(|| p.clone());
        let mut inputs = present(&[&q, &k, &v, &cos, &sin]);
        inputs.extend([p.clone(), p, None]);
        let fused = attention("RotaryCachedAttention").eval(&inputs).remove(0);
        assert_close(&fused, &expected, 0.0);
    }
}
