//! The cache and attention against f64 loops.

mod common;

use common::*;
use planish_cpu::*;

fn formats() -> [KvFormat; 4] {
    let clip = Clip { min: 0.9, max: 0.95 };
    [
        KvFormat::F32,
        KvFormat::Int8(Clip::default()),
        KvFormat::Int4(Clip::default()),
        KvFormat::Int4(clip),
    ]
}

fn reference(head: &[f32], format: KvFormat) -> Vec<f32> {
    let (bits, clip) = match format {
        KvFormat::F32 => return head.to_vec(),
        KvFormat::Int8(clip) => (8, clip),
        KvFormat::Int4(clip) => (4, clip),
    };
    let q = ((1 << bits) - 1) as f32;
    let low = head.iter().copied().fold(f32::MAX, f32::min) * clip.min;
    let high = head.iter().copied().fold(f32::MIN, f32::max) * clip.max;
    let scale = (high - low).max(1e-8) / q;
    let zero = (-low / scale).round_ties_even();
    let code = |x: f32| ((x / scale).round_ties_even() + zero).clamp(0.0, q);
    head.iter().map(|&x| (code(x) - zero) * scale).collect()
}

fn filled(spec: KvSpec, isa: Isa, keys: &[f32], values: &[f32], steps: &[usize]) -> KvCache {
    let mut cache = KvCache::new(spec);
    let (width, mut at) = (spec.n_kv_heads * spec.head_dim, 0);
    for &step in steps {
        let part = at * width..(at + step) * width;
        cache.append(pool(), isa, &keys[part.clone()], &values[part]);
        at += step;
    }
    cache
}

#[test]
fn the_cache_gives_back_what_its_format_defines() {
    let mut random = Random::new(20);
    for head_dim in [1, 7, 40, 64, 80] {
        for format in formats() {
            let spec = KvSpec { n_kv_heads: 3, head_dim, keys: format, values: format };
            let (tokens, width) = (45, 3 * head_dim);
            let mut keys = random.floats(tokens * width);
            keys[..width].fill(5.0);
            let values = random.floats(tokens * width);
            let expand = |x: &[f32]| -> Vec<f32> {
                x.chunks(head_dim).flat_map(|h| reference(h, format)).collect()
            };
            for isa in isas() {
                let cache = filled(spec, isa, &keys, &values, &[1, 30, 14]);
                let (mut k, mut v) = (vec![0.0; tokens * width], vec![0.0; tokens * width]);
                cache.read_dequantized(0..tokens, &mut k, &mut v);
                assert_eq!((k, v), (expand(&keys), expand(&values)), "{isa:?} {format:?}");
            }
        }
    }
}

#[test]
fn truncated_tokens_are_replaced() {
    let mut random = Random::new(21);
    let format = KvFormat::Int4(Clip::default());
    let spec = KvSpec { n_kv_heads: 2, head_dim: 32, keys: format, values: format };
    let rows = random.floats(40 * 64);
    let mut cache = filled(spec, Isa::best(), &rows, &rows, &[30]);
    let bytes = cache.bytes_used();
    cache.truncate(20);
    assert_eq!((cache.len(), cache.bytes_used()), (20, bytes / 3 * 2));
    cache.append(pool(), Isa::best(), &rows[30 * 64..], &rows[30 * 64..]);
    let (mut k, mut v) = (vec![0.0; 64], vec![0.0; 64]);
    cache.read_dequantized(20..21, &mut k, &mut v);
    let want: Vec<f32> =
        rows[30 * 64..31 * 64].chunks(32).flat_map(|h| reference(h, format)).collect();
    assert_eq!((&k, &v), (&want, &want));
    cache.clear();
    assert!(cache.is_empty());
}

#[test]
fn standalone_fake_quantisation() {
    let x = Random::new(22).floats(6 * 3 * 24);
    for format in formats() {
        let (bits, clip) = match format {
            KvFormat::F32 => continue,
            KvFormat::Int8(clip) => (8, clip),
            KvFormat::Int4(clip) => (4, clip),
        };
        let want: Vec<f32> = x.chunks(24).flat_map(|h| reference(h, format)).collect();
        for isa in isas() {
            let mut out = vec![0.0; x.len()];
            quantize_dequantize_heads(pool(), isa, &x, 3, 24, bits, clip, &mut out);
            assert_eq!(out, want);
        }
    }
}

fn attended(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    past: usize,
    spec: &AttentionSpec<'_>,
) -> Vec<f64> {
    let (dim, width) = (spec.head_dim, spec.n_heads * spec.head_dim);
    let kv_width = spec.n_kv_heads * dim;
    let n_keys = keys.len() / kv_width;
    let mut out = vec![0.0; q.len()];
    for i in 0..q.len() / width {
        for h in 0..spec.n_heads {
            let from = h / (spec.n_heads / spec.n_kv_heads) * dim;
            let (query, position) = (&q[i * width + h * dim..][..dim], past + i);
            let seen = |j: &usize| {
                (!spec.causal || *j <= position)
                    && spec.window.is_none_or(|w| j + w > position)
                    && spec.pad_mask.is_none_or(|m| m[*j])
            };
            let score = |j: usize| {
                let key = &keys[j * kv_width + from..][..dim];
                let dot: f64 =
                    query.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let s = dot * f64::from(spec.scale);
                spec.softcap.map_or(s, |c| f64::from(c) * (s / f64::from(c)).tanh())
            };
            let weights: Vec<(usize, f64)> =
                (0..n_keys).filter(seen).map(|j| (j, score(j).exp())).collect();
            let total: f64 = weights.iter().map(|w| w.1).sum();
            for (j, weight) in weights {
                for d in 0..dim {
                    let value = f64::from(values[j * kv_width + from + d]);
                    out[i * width + h * dim + d] += weight / total * value;
                }
            }
        }
    }
    out
}

struct Shape {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    past: usize,
    s: usize,
}

fn check<'a>(shape: &Shape, format: KvFormat, adjust: impl Fn(&mut AttentionSpec<'a>)) {
    let &Shape { n_heads, n_kv_heads, head_dim, past, s } = shape;
    let mut random = Random::new((past * 1000 + s) as u64);
    let mut floats = |n| -> Vec<f32> { random.floats(n).iter().map(|x| 2.0 * x).collect() };
    let tokens = past + s;
    let (keys, values) =
        (floats(tokens * n_kv_heads * head_dim), floats(tokens * n_kv_heads * head_dim));
    let q = floats(s * n_heads * head_dim);
    let mut spec = AttentionSpec {
        n_heads,
        n_kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        softcap: None,
        causal: true,
        window: None,
        pad_mask: None,
    };
    adjust(&mut spec);
    for isa in isas() {
        let kv = KvSpec { n_kv_heads, head_dim, keys: format, values: format };
        let cache = filled(kv, isa, &keys, &values, &[past, s]);
        let (mut k, mut v) = (vec![0.0; keys.len()], vec![0.0; keys.len()]);
        cache.read_dequantized(0..tokens, &mut k, &mut v);
        let want = attended(&q, &k, &v, past, &spec);
        let mut out = vec![f32::NAN; q.len()];
        attention(pool(), isa, &q, &cache, past, spec, &mut out);
        assert_close(
            &out,
            &want,
            2e-5,
            &format!("{isa:?} {format:?} past {past} s {s} dim {head_dim}"),
        );
    }
}

const SHAPES: [Shape; 8] = [
    Shape { n_heads: 9, n_kv_heads: 3, head_dim: 64, past: 0, s: 1 },
    Shape { n_heads: 9, n_kv_heads: 3, head_dim: 64, past: 300, s: 1 },
    Shape { n_heads: 4, n_kv_heads: 2, head_dim: 80, past: 33, s: 1 },
    Shape { n_heads: 6, n_kv_heads: 1, head_dim: 7, past: 20, s: 1 },
    Shape { n_heads: 1, n_kv_heads: 1, head_dim: 128, past: 15, s: 2 },
    Shape { n_heads: 9, n_kv_heads: 3, head_dim: 64, past: 0, s: 130 },
    Shape { n_heads: 4, n_kv_heads: 2, head_dim: 40, past: 150, s: 61 },
    Shape { n_heads: 2, n_kv_heads: 2, head_dim: 9, past: 3, s: 12 },
];

#[test]
fn causal_attention_in_every_format() {
    for shape in &SHAPES {
        formats().into_iter().for_each(|format| check(shape, format, |_| {}));
    }
}

#[test]
fn windows_caps_and_full_attention() {
    for shape in &SHAPES {
        for format in formats() {
            check(shape, format, |spec| spec.window = Some(10));
            check(shape, format, |spec| spec.softcap = Some(1.5));
            check(shape, format, |spec| spec.causal = false);
        }
    }
}

#[test]
fn masked_keys_and_rows_that_see_nothing() {
    let mask: Vec<bool> = (0..400).map(|i| i >= 5 && i % 7 != 3).collect();
    for shape in &SHAPES {
        for format in formats() {
            let mask = &mask;
            check(shape, format, |spec| spec.pad_mask = Some(mask));
        }
    }
}
