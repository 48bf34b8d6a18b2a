//! Attention for training and its gradient against plain loops in f64, and those against finite
//! differences.

mod common;

use common::{Random, assert_close, isas};
use planish_cpu::*;

/// A mask with its own values.
#[derive(Clone)]
enum Mask {
    Added(Vec<f32>),
    Seen(Vec<u8>),
}

#[derive(Clone)]
struct Case {
    batch: usize,
    heads: [usize; 2],
    rows: [usize; 2],
    dims: [usize; 2],
    head_major: bool,
    causal: bool,
    window: Option<usize>,
    first_position: usize,
    softcap: Option<f32>,
    mask: Option<Mask>,
    mask_steps: [usize; 4],
    mask_keys: usize,
}

impl Case {
    fn new(batch: usize, heads: [usize; 2], rows: [usize; 2], dims: [usize; 2]) -> Self {
        Self {
            batch,
            heads,
            rows,
            dims,
            head_major: false,
            causal: true,
            window: None,
            first_position: rows[1].saturating_sub(rows[0]),
            softcap: None,
            mask: None,
            mask_steps: [rows[0] * rows[1], 0, rows[1], 1],
            mask_keys: rows[1],
        }
    }

    fn spec(&self) -> DenseAttention<'_> {
        let layout = |heads, rows, dim| {
            let (batch, head_major) = (self.batch, self.head_major);
            HeadLayout { batch, heads, rows, dim, head_major }
        };
        let mask = self.mask.as_ref().map(|mask| AttentionMask {
            values: match mask {
                Mask::Added(values) => MaskValues::Added(values),
                Mask::Seen(values) => MaskValues::Seen(values),
            },
            steps: self.mask_steps,
            n_keys: self.mask_keys,
        });
        DenseAttention {
            q: layout(self.heads[0], self.rows[0], self.dims[0]),
            k: layout(self.heads[1], self.rows[1], self.dims[0]),
            v: layout(self.heads[1], self.rows[1], self.dims[1]),
            y: layout(self.heads[0], self.rows[0], self.dims[1]),
            scale: 1.0 / (self.dims[0] as f32).sqrt(),
            softcap: self.softcap,
            causal: self.causal,
            window: self.window,
            first_position: self.first_position,
            mask,
        }
    }

    /// What is added to a score; −∞ where the key is hidden.
    fn bias(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        let position = self.first_position + i;
        let hidden = (self.causal && j > position)
            || self.window.is_some_and(|w| j + w <= position)
            || (self.mask.is_some() && j >= self.mask_keys);
        if hidden {
            return f64::NEG_INFINITY;
        }
        let at: usize = [b, h, i, j].iter().zip(self.mask_steps).map(|(i, step)| i * step).sum();
        match &self.mask {
            None => 0.0,
            Some(Mask::Added(values)) => f64::from(values[at]),
            Some(Mask::Seen(values)) if values[at] != 0 => 0.0,
            Some(Mask::Seen(_)) => f64::NEG_INFINITY,
        }
    }
}

fn index(l: &HeadLayout, b: usize, h: usize, i: usize) -> usize {
    match l.head_major {
        true => ((b * l.heads + h) * l.rows + i) * l.dim,
        false => ((b * l.rows + i) * l.heads + h) * l.dim,
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(sum: &mut [f64], factor: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
}

/// The result y, and the gradients of Σ y · dy with respect to q, k and v.
fn reference(case: &Case, [q, k, v]: [&[f64]; 3], dy: &[f64]) -> [Vec<f64>; 4] {
    let spec = case.spec();
    let mut y = vec![0.0; dy.len()];
    let mut d = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
    let all = (0..spec.q.batch * spec.q.heads * spec.q.rows)
        .map(|n| (n / spec.q.rows / spec.q.heads, n / spec.q.rows % spec.q.heads, n % spec.q.rows));
    for (b, h, i) in all {
        let kv = h / (spec.q.heads / spec.k.heads);
        let at = |l: &HeadLayout, h, i| index(l, b, h, i)..index(l, b, h, i) + l.dim;
        let (query, out) = (at(&spec.q, h, i), at(&spec.y, h, i));
        let scale = f64::from(spec.scale);
        let cap = |s: f64| spec.softcap.map_or(s, |c| f64::from(c) * (s / f64::from(c)).tanh());
        let capped: Vec<f64> = (0..spec.k.rows)
            .map(|j| cap(scale * dot(&q[query.clone()], &k[at(&spec.k, kv, j)])))
            .collect();
        let scores: Vec<f64> =
            capped.iter().enumerate().map(|(j, s)| s + case.bias(b, h, i, j)).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            continue;
        }
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let p: Vec<f64> = scores.iter().map(|s| (s - max).exp() / total).collect();
        let dp: Vec<f64> =
            (0..p.len()).map(|j| dot(&dy[out.clone()], &v[at(&spec.v, kv, j)])).collect();
        let mean = dot(&p, &dp);
        for j in 0..p.len() {
            add(&mut y[out.clone()], p[j], &v[at(&spec.v, kv, j)]);
            let slope = spec.softcap.map_or(1.0, |c| 1.0 - (capped[j] / f64::from(c)).powi(2));
            let ds = p[j] * (dp[j] - mean) * slope * scale;
            add(&mut d[0][query.clone()], ds, &k[at(&spec.k, kv, j)]);
            add(&mut d[1][at(&spec.k, kv, j)], ds, &q[query.clone()]);
            add(&mut d[2][at(&spec.v, kv, j)], p[j], &dy[out.clone()]);
        }
    }
    let [dq, dk, dv] = d;
    [y, dq, dk, dv]
}

/// Random q, k, v and dy.
fn data(case: &Case, seed: u64) -> [Vec<f32>; 4] {
    let (spec, mut random) = (case.spec(), Random::new(seed));
    [spec.q, spec.k, spec.v, spec.y]
        .map(|l| random.floats(l.n_elements()).iter().map(|x| 2.0 * x).collect())
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn check(case: &Case, threads: &[usize], isas: &[Isa]) {
    let [q, k, v, dy] = data(case, 7);
    let [wide_q, wide_k, wide_v] = [&q, &k, &v].map(|x| wide(x));
    let want = reference(case, [&wide_q, &wide_k, &wide_v], &wide(&dy));
    let x = AttentionInputs { q: &q, k: &k, v: &v };
    for &n in threads {
        let pool = ThreadPool::new(n);
        for &isa in isas {
            let mut got = [&dy, &q, &k, &v].map(|x| vec![f32::NAN; x.len()]);
            let [y, dq, dk, dv] = &mut got;
            attention_forward(&pool, isa, &case.spec(), x, y);
            let out = AttentionGradients { dq, dk, dv };
            attention_backward(&pool, isa, &case.spec(), x, &dy, out);
            for (name, (got, want)) in ["y", "dq", "dk", "dv"].iter().zip(got.iter().zip(&want)) {
                let shape = (case.batch, case.heads, case.rows, case.dims);
                assert_close(got, want, 4e-5, &format!("{name} {shape:?} {isa:?} {n} threads"));
            }
        }
    }
}

/// Sizes on both sides of blocks, strips and vectors.
fn cases() -> Vec<Case> {
    vec![
        Case::new(2, [9, 3], [70, 70], [64, 64]),
        Case::new(1, [3, 1], [200, 200], [20, 20]),
        Case::new(2, [2, 2], [1, 1], [5, 3]),
        Case::new(1, [4, 2], [17, 90], [16, 40]),
        Case::new(1, [2, 1], [150, 60], [7, 9]),
        Case::new(1, [2, 1], [65, 130], [33, 1]),
    ]
}

#[test]
fn causal_and_full_attention() {
    for case in cases() {
        check(&case, &[2], &isas());
        check(&Case { causal: false, ..case.clone() }, &[2], &isas());
        check(&Case { head_major: true, ..case.clone() }, &[2], &isas());
        check(&Case { first_position: 0, ..case }, &[2], &isas());
    }
}

#[test]
fn any_number_of_threads() {
    for case in cases() {
        check(&case, &[1, 3, 5, 16], &[Isa::best()]);
    }
}

#[test]
fn windows_and_caps() {
    for case in cases() {
        for window in [1, 10, 100] {
            check(&Case { window: Some(window), ..case.clone() }, &[2], &isas());
        }
        check(&Case { window: Some(10), causal: false, ..case.clone() }, &[2], &isas());
        check(&Case { softcap: Some(0.9), ..case }, &[2], &isas());
    }
}

#[test]
fn masks_and_rows_that_see_nothing() {
    for case in cases() {
        let n = case.batch * case.rows[0] * case.rows[1];
        let mut random = Random::new(3);
        // A whole row is hidden, then here and there a key.
        let hides = |i: usize| i / case.rows[1] == case.rows[0] / 2 || i % 7 == 3;
        let added = random.floats(n).into_iter().enumerate();
        let added = added.map(|(i, x)| if hides(i) { f32::NEG_INFINITY } else { x }).collect();
        let seen: Vec<u8> = (0..n).map(|i| u8::from(!hides(i))).collect();
        for mask in [Mask::Added(added), Mask::Seen(seen)] {
            for causal in [true, false] {
                check(&Case { causal, mask: Some(mask.clone()), ..case.clone() }, &[2], &isas());
            }
            let fewer = Case {
                causal: false,
                mask: Some(mask.clone()),
                mask_keys: case.rows[1].div_ceil(2),
                ..case.clone()
            };
            check(&fewer, &[2], &isas());
            let by_query = Case { mask: Some(mask), mask_steps: [0, 0, 1, 0], ..case.clone() };
            check(&by_query, &[2], &isas());
        }
    }
}

#[test]
fn long_rows() {
    check(&Case::new(1, [1, 1], [40, 9000], [8, 8]), &[2], &[Isa::best()]);
    check(&Case::new(1, [2, 1], [1100, 1100], [16, 16]), &[3], &[Isa::best()]);
}

#[test]
fn nothing_to_attend_to() {
    let case = Case { causal: false, ..Case::new(1, [2, 1], [3, 0], [4, 4]) };
    let (q, mut y, mut dq) = (vec![1.0; 24], vec![f32::NAN; 24], vec![f32::NAN; 24]);
    let x = AttentionInputs { q: &q, k: &[], v: &[] };
    let pool = ThreadPool::new(2);
    attention_forward(&pool, Isa::best(), &case.spec(), x, &mut y);
    let out = AttentionGradients { dq: &mut dq, dk: &mut [], dv: &mut [] };
    attention_backward(&pool, Isa::best(), &case.spec(), x, &q, out);
    assert_eq!((y, dq), (vec![0.0; 24], vec![0.0; 24]));
}

#[test]
fn the_plain_gradient_is_that_of_the_plain_result() {
    let mut capped = Case::new(2, [4, 2], [3, 5], [4, 3]);
    capped.softcap = Some(1.3);
    capped.mask = Some(Mask::Added((0..30).map(|i| 0.1 * i as f32 - 1.0).collect()));
    for case in [Case::new(1, [3, 1], [4, 4], [2, 2]), capped] {
        let [q, k, v, dy] = data(&case, 11).map(|x| wide(&x));
        let loss = |x: &[Vec<f64>; 3]| dot(&reference(&case, [&x[0], &x[1], &x[2]], &dy)[0], &dy);
        let [_, dq, dk, dv] = reference(&case, [&q, &k, &v], &dy);
        let x = [q, k, v];
        for (which, gradient) in [dq, dk, dv].iter().enumerate() {
            for (i, got) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut x = x.clone();
                    x[which][i] += by;
                    loss(&x)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((slope - got).abs() < 1e-7, "{which} [{i}]: {got}, not {slope}");
            }
        }
    }
}
