//! The gradient of attention, one query at a time in f64.

use crate::OpError;
use crate::ops::attention::mask::Mask;
use crate::ops::support::dense::dot;
use crate::ops::support::heads::Heads;

/// The gradients of q, k and v. With scores S, P = softmax(S) and y = P·v: dv = Pᵀ·dy,
/// dP = dy·vᵀ, dS = P ∘ (dP − rowsum(P ∘ dP)), and S = cap(scale · q·kᵀ) + mask.
pub(super) fn gradients(
    [dy, q, k, v]: [&Heads; 4],
    [scale, softcap]: [f32; 2],
    mask: &Mask,
) -> Result<[Heads; 3], OpError> {
    let fits = q.size == k.size
        && (q.batch, k.batch) == (k.batch, v.batch)
        && (k.heads, k.seq) == (v.heads, v.seq)
        && k.heads > 0
        && q.heads.is_multiple_of(k.heads)
        && [dy.batch, dy.heads, dy.seq, dy.size] == [q.batch, q.heads, q.seq, v.size];
    if !fits {
        return Err(OpError::shape("queries, keys, values and the gradient do not go together"));
    }
    let mut sums = [q, k, v].map(|x| vec![0f64; x.data.len()]);
    let group = q.heads / k.heads;
    for (b, h, i) in positions(q) {
        let row = Row { scale: f64::from(scale), softcap: f64::from(softcap), b, head: h / group };
        let bias = |j| f64::from(mask.bias(b, h, i, j));
        let (query, out) = (q.row(b, h, i), dy.row(b, h, i));
        let (weights, ds) = row.gradients(query, out, k, v, &bias);
        for j in 0..k.seq {
            add(&mut sums[0], q, [b, h, i], ds[j], k.row(b, row.head, j));
            add(&mut sums[1], k, [b, row.head, j], ds[j], query);
            add(&mut sums[2], v, [b, row.head, j], weights[j], out);
        }
    }
    let [dq, dk, dv] = sums;
    Ok([rounded(q, dq), rounded(k, dk), rounded(v, dv)])
}

fn positions(q: &Heads) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
    let (batch, heads, seq) = (q.batch, q.heads, q.seq);
    (0..batch * heads * seq).map(move |n| (n / seq / heads, n / seq % heads, n % seq))
}

/// What the scores of one query are made with.
struct Row {
    scale: f64,
    softcap: f64,
    b: usize,
    /// The key/value head.
    head: usize,
}

impl Row {
    /// The probabilities of one query, and the gradients of its products q · k.
    fn gradients(
        &self,
        query: &[f32],
        dy: &[f32],
        k: &Heads,
        v: &Heads,
        bias: &dyn Fn(usize) -> f64,
    ) -> (Vec<f64>, Vec<f64>) {
        let capped: Vec<f64> = (0..k.seq)
            .map(|j| self.cap(dot(query, k.row(self.b, self.head, j)) * self.scale))
            .collect();
        let scores: Vec<f64> = capped.iter().enumerate().map(|(j, s)| s + bias(j)).collect();
        let p = softmax(&scores);
        let dp: Vec<f64> = (0..k.seq).map(|j| dot(dy, v.row(self.b, self.head, j))).collect();
        let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        let ds = (0..k.seq).map(|j| p[j] * (dp[j] - mean) * self.slope(capped[j]) * self.scale);
        let ds = ds.collect();
        (p, ds)
    }

    fn cap(&self, s: f64) -> f64 {
        if self.softcap > 0.0 { self.softcap * (s / self.softcap).tanh() } else { s }
    }

    /// The derivative of the cap where it gives `capped`.
    fn slope(&self, capped: f64) -> f64 {
        if self.softcap > 0.0 { 1.0 - (capped / self.softcap).powi(2) } else { 1.0 }
    }
}

/// Softmax that gives zeros where everything is hidden.
fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return vec![0.0; scores.len()];
    }
    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    scores.iter().map(|s| (s - max).exp() / sum).collect()
}

/// sums[at] += factor · x, for the row `at` (batch, head, position) of what is laid out as `like`.
fn add(sums: &mut [f64], like: &Heads, [b, h, i]: [usize; 3], factor: f64, x: &[f32]) {
    let start = ((b * like.heads + h) * like.seq + i) * like.size;
    let row = &mut sums[start..start + like.size];
    row.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * f64::from(*x));
}

fn rounded(like: &Heads, sums: Vec<f64>) -> Heads {
    let Heads { batch, heads, seq, size, .. } = *like;
    Heads { batch, heads, seq, size, data: sums.into_iter().map(|x| x as f32).collect() }
}
