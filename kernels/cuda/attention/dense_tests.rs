//! Attention for learning against loops on the host.

use super::dense::Products;
use super::{DenseAttention, DenseGradients};
use crate::elementwise::Heads;
use crate::testing::{gpu, random_f32};
use crate::{DeviceBuffer, Gpu};

/// The result and the gradients of q, k and v.
type Expected = [Vec<f64>; 4];

/// As the kernels' input is rounded.
fn rounded(data: &[f32]) -> Vec<f64> {
    data.iter().map(|x| f64::from(half::bf16::from_f32(*x).to_f32())).collect()
}

fn expected(
    [q, k, v, dy]: [&[f32]; 4],
    (of_q, of_k): (Heads, Heads),
    is_causal: bool,
    scale: f64,
) -> Expected {
    let [q, k, v, dy] = [q, k, v, dy].map(rounded);
    let d = of_q.size;
    let at = |heads: Heads, b: usize, h: usize, row: usize| {
        let [of_batch, of_head, of_row] = heads.steps().map(|step| step as usize);
        let start = b * of_batch + h * of_head + row * of_row;
        start..start + d
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut found = [q.len(), q.len(), k.len(), v.len()].map(|n| vec![0.0; n]);
    let mut add = |which: usize, to: std::ops::Range<usize>, factor: f64, from: &[f64]| {
        found[which][to].iter_mut().zip(from).for_each(|(to, x)| *to += factor * x);
    };
    for (b, h) in (0..of_q.batch).flat_map(|b| (0..of_q.heads).map(move |h| (b, h))) {
        let g = h / (of_q.heads / of_k.heads);
        for i in 0..of_q.rows {
            let own = at(of_q, b, h, i);
            let n = if is_causal { i + 1 } else { of_k.rows };
            let score = |j| scale * dot(&q[own.clone()], &k[at(of_k, b, g, j)]);
            let scores: Vec<f64> = (0..n).map(score).collect();
            let top = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
            let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp() / total).collect();
            let slopes: Vec<f64> =
                (0..n).map(|j| dot(&dy[own.clone()], &v[at(of_k, b, g, j)])).collect();
            let mean = dot(&weights, &slopes);
            for j in 0..n {
                let other = at(of_k, b, g, j);
                let slope = weights[j] * (slopes[j] - mean) * scale;
                add(0, own.clone(), weights[j], &v[other.clone()]);
                add(1, own.clone(), slope, &k[other.clone()]);
                add(2, other.clone(), slope, &q[own.clone()]);
                add(3, other, weights[j], &dy[own.clone()]);
            }
        }
    }
    found
}

fn check(gpu: &Gpu, at: &DeviceBuffer, expected: &[f64], what: &str) {
    let actual: Vec<f32> = gpu.download(at.ptr(), expected.len()).unwrap();
    let size = expected.iter().fold(0f64, |max, x| max.max(x.abs()));
    let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let errors = || actual.iter().zip(expected).map(|(a, e)| f64::from(*a) - e);
    let (error, norm) = (squares(&mut errors()), squares(&mut expected.iter().copied()));
    assert!(error < 6e-3 * norm, "{what}: error {error} of {norm}");
    let largest = errors().fold(0f64, |max, x| max.max(x.abs()));
    assert!(largest < 2e-2 * size, "{what}: {largest} of {size}");
}

#[test]
fn dense_attention_and_its_gradients_are_those_of_loops() {
    let Some(gpu) = gpu() else { return };
    let cases = [
        // Batch, query heads, key heads, queries, keys, channels, causal, head after head.
        (2, 4, 2, 64, 64, 64, true, false),
        (1, 3, 1, 200, 200, 64, true, false),
        (2, 2, 2, 130, 130, 128, true, true),
        (1, 2, 1, 70, 150, 16, false, false),
        (1, 9, 3, 257, 257, 64, true, false),
        (1, 1, 1, 1, 5, 80, false, true),
        (2, 6, 3, 700, 700, 64, true, true),
        (2, 3, 1, 500, 500, 128, true, false),
        (1, 4, 4, 200, 390, 64, false, false),
    ];
    for (batch, q_heads, kv_heads, queries, keys, size, is_causal, head_major) in cases {
        let of_q = Heads { batch, heads: q_heads, rows: queries, size, head_major };
        let of_k = Heads { heads: kv_heads, rows: keys, ..of_q };
        let data = [(1, of_q), (2, of_k), (3, of_k), (4, of_q)].map(|(s, h)| random_f32(s, h.n()));
        let [q, k, v, dy] = data.each_ref().map(|data| gpu.upload(data).unwrap());
        let scale = 2.5 / (size as f32).sqrt();
        let attention = DenseAttention {
            q: (q.ptr(), of_q),
            k: (k.ptr(), of_k),
            v: (v.ptr(), of_k),
            is_causal,
            scale,
        };
        assert!(attention.fits());
        let wanted =
            expected(data.each_ref().map(Vec::as_slice), (of_q, of_k), is_causal, f64::from(scale));
        for by in [Products::Mma, attention.products(&gpu)] {
            let out = |n: usize| gpu.upload(&vec![f32::NAN; n]).unwrap();
            let [y, dq, dk, dv] = wanted.each_ref().map(|x| out(x.len()));
            attention.forward_by(&gpu, by, y.ptr()).unwrap();
            let gradients =
                DenseGradients { dy: dy.ptr(), dq: dq.ptr(), dk: dk.ptr(), dv: dv.ptr() };
            attention.backward_by(&gpu, by, &gradients).unwrap();
            for ((what, at), wanted) in
                [("y", y), ("dq", dq), ("dk", dk), ("dv", dv)].iter().zip(&wanted)
            {
                let what = format!("{what} of {of_q:?}, {keys} keys, causal {is_causal}, {by:?}");
                check(&gpu, at, wanted, &what);
            }
        }
    }
}
