//! Scaled dot-product attention over heads, the plain way.

use super::dense::dot;
use super::heads::Heads;
use crate::OpError;

/// How scores are formed.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Scoring<'a> {
    /// Factor on q · k.
    pub scale: f32,
    /// Scores become `softcap · tanh(score / softcap)`; 0 for none.
    pub softcap: f32,
    /// What is added for batch, query head, query and key; −∞ where the key is hidden.
    pub bias: &'a dyn Fn(usize, usize, usize, usize) -> f32,
}

/// Which step of the way is to be returned as well, numbered as ONNX's `qk_matmul_output_mode`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Stage {
    Product,
    Capped,
    Biased,
    Softmax,
}

/// softmax(q · kᵀ · scale + bias) · v, each key head shared by as many query heads as it takes.
/// A query that sees no key gives zeros. Also returns the scores `[b, heads, q, k]` at `stage`.
pub(in crate::ops) fn attend(
    q: &Heads,
    k: &Heads,
    v: &Heads,
    scoring: Scoring,
    stage: Stage,
) -> Result<(Heads, Heads), OpError> {
    let fits = q.size == k.size
        && (q.batch, k.batch) == (k.batch, v.batch)
        && (k.heads, k.seq) == (v.heads, v.seq)
        && k.heads > 0
        && q.heads.is_multiple_of(k.heads);
    if !fits {
        return Err(OpError::shape("queries, keys and values do not go together"));
    }
    let mut out = Heads::zeros(q.batch, q.heads, q.seq, v.size);
    let mut stages = Heads::zeros(q.batch, q.heads, q.seq, k.seq);
    let group = q.heads / k.heads;
    for b in 0..q.batch {
        for h in 0..q.heads {
            for i in 0..q.seq {
                let row = stages.row_mut(b, h, i);
                let query = q.row(b, h, i);
                row.iter_mut().enumerate().for_each(|(j, score)| {
                    *score = (dot(query, k.row(b, h / group, j)) * f64::from(scoring.scale)) as f32;
                });
                let weights = weigh(row, scoring, stage, &|j| (scoring.bias)(b, h, i, j));
                mix(out.row_mut(b, h, i), &weights, &|j| v.row(b, h / group, j));
            }
        }
    }
    Ok((out, stages))
}

/// Products to weights; leaves the scores at `stage` in `row`.
fn weigh(row: &mut [f32], scoring: Scoring, stage: Stage, bias: &dyn Fn(usize) -> f32) -> Vec<f32> {
    let cap = |x: f32| match scoring.softcap {
        c if c > 0.0 => c * (x / c).tanh(),
        _ => x,
    };
    let capped: Vec<f32> = row.iter().map(|x| cap(*x)).collect();
    let biased: Vec<f32> = capped.iter().enumerate().map(|(j, x)| x + bias(j)).collect();
    let weights = softmax(&biased);
    match stage {
        Stage::Product => {}
        Stage::Capped => row.copy_from_slice(&capped),
        Stage::Biased => row.copy_from_slice(&biased),
        Stage::Softmax => row.copy_from_slice(&weights),
    }
    weights
}

/// Softmax that gives zeros where everything is hidden.
fn softmax(scores: &[f32]) -> Vec<f32> {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return vec![0.0; scores.len()];
    }
    let exps: Vec<f64> = scores.iter().map(|s| f64::from(s - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| (e / sum) as f32).collect()
}

fn mix<'a>(out: &mut [f32], weights: &[f32], value: &dyn Fn(usize) -> &'a [f32]) {
    let mut sums = vec![0f64; out.len()];
    for (j, weight) in weights.iter().enumerate().filter(|(_, w)| **w != 0.0) {
        let terms = sums.iter_mut().zip(value(j));
        terms.for_each(|(sum, v)| *sum += f64::from(*weight) * f64::from(*v));
    }
    out.iter_mut().zip(sums).for_each(|(o, s)| *o = s as f32);
}
