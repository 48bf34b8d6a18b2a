//! The reference evaluation of `GroupQueryAttention`.

use super::*;
use crate::ops::common::broadcast;
use crate::ops::support::Dense;
use crate::ops::support::attend::{Scoring, Stage, attend};
use crate::ops::support::heads::Heads;
use crate::ops::support::rotary::{Angles, rotate_all};

/// Sizes of one call.
struct Lengths {
    /// Keys of each sequence before this call.
    pasts: Vec<usize>,
    /// Keys that the present buffers have room for.
    present: usize,
}

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let spec = Spec::new(op)?;
    check_form(op, |i| optional(inputs, i).is_some())?;
    let dtype = required(inputs, 0)?.dtype();
    let [mut q, mut k, v] = split(&spec, inputs)?;
    if [(k.batch, k.seq), (v.batch, v.seq)] != [(q.batch, q.seq); 2] {
        return Err(OpError::shape("queries, keys and values have other batches or lengths"));
    }
    let lengths = Lengths::new(inputs, q.batch, q.seq)?;
    if spec.rotary {
        let read = |i| Dense::read(required(inputs, i)?);
        let (cos, sin) = (read(7)?, read(8)?);
        let half = cos.last();
        let angles = Angles::new(cos, sin, half)?;
        let ids = optional(inputs, 9).map(Tensor::to_i64_vec).transpose()?;
        let seq = q.seq;
        let position = |b: usize, s: usize| match &ids {
            Some(ids) => ids.get(b * seq + s).copied().unwrap_or(-1),
            None => (lengths.pasts[b] + s) as i64,
        };
        rotate_all(&mut q, &angles, spec.interleaved, position)?;
        rotate_all(&mut k, &angles, spec.interleaved, position)?;
    }
    let k = lengths.append(k, optional(inputs, 3))?;
    let v = lengths.append(v, optional(inputs, 4))?;
    let bias = added_bias(optional(inputs, 10), [q.batch, q.heads, q.seq, k.seq])?;
    let hidden = |b: usize, i: usize, j: usize| {
        let at = lengths.pasts[b] + i;
        j > at || spec.window.is_some_and(|window| j + window <= at)
    };
    let scoring = Scoring {
        scale: spec.scale.unwrap_or(1.0 / (q.size as f32).sqrt()),
        softcap: spec.softcap,
        bias: &|b, h, i, j| if hidden(b, i, j) { f32::NEG_INFINITY } else { bias(b, h, i, j) },
    };
    let (y, _) = attend(&q, &k, &v, scoring, Stage::Product)?;
    let outputs = [y.into_3d(), k.into_4d(), v.into_4d()];
    outputs.into_iter().take(op.n_outputs()).map(|t| t.into_tensor(dtype)).collect()
}

/// Queries, keys and values of the packed or the separate inputs.
fn split(spec: &Spec, inputs: &[Option<Tensor>]) -> Result<[Heads; 3], OpError> {
    let query = Dense::read(required(inputs, 0)?)?;
    if let (Some(k), Some(v)) = (optional(inputs, 1), optional(inputs, 2)) {
        let read = |t| Heads::read(Dense::read(t)?, spec.kv_heads);
        return Ok([Heads::read(query, spec.q_heads)?, read(k)?, read(v)?]);
    }
    let packed = Heads::read(query, spec.q_heads + 2 * spec.kv_heads)?;
    let part = |first: usize, n: usize| {
        let mut part = Heads::zeros(packed.batch, n, packed.seq, packed.size);
        for b in 0..packed.batch {
            for (h, s) in (0..n).flat_map(|h| (0..packed.seq).map(move |s| (h, s))) {
                part.row_mut(b, h, s).copy_from_slice(packed.row(b, first + h, s));
            }
        }
        part
    };
    let (q, kv) = (spec.q_heads, spec.kv_heads);
    Ok([part(0, q), part(q, kv), part(q + kv, kv)])
}

impl Lengths {
    fn new(inputs: &[Option<Tensor>], batch: usize, seq: usize) -> Result<Self, OpError> {
        let bad = || OpError::shape("seqlens_k and total_sequence_length do not fit the inputs");
        let last = required(inputs, 5)?.to_i64_vec()?;
        let total = required(inputs, 6)?.to_i64_vec()?;
        let total = total.first().and_then(|n| usize::try_from(*n).ok()).ok_or_else(bad)?;
        let buffer = optional(inputs, 3).and_then(|t| t.shape().get(2).copied()).unwrap_or(0);
        let present = buffer.max(total);
        let totals: Option<Vec<usize>> =
            last.iter().map(|n| usize::try_from(n + 1).ok().filter(|n| *n <= present)).collect();
        let totals = totals.filter(|t| t.len() == batch).ok_or_else(bad)?;
        // A call that brings all the keys is a prompt: nothing lies before it, and shorter
        // sequences are padded.
        let is_prompt = seq == total;
        let past = |n: &usize| if is_prompt { Some(0) } else { n.checked_sub(seq) };
        let pasts = totals.iter().map(past).collect::<Option<_>>().ok_or_else(bad)?;
        Ok(Self { pasts, present })
    }

    /// The buffer of present keys or values: past, then new, then zeros.
    fn append(&self, new: Heads, past: Option<&Tensor>) -> Result<Heads, OpError> {
        let past = past.map(|t| Heads::read(Dense::read(t)?, 0)).transpose()?;
        let mut all = Heads::zeros(new.batch, new.heads, self.present, new.size);
        for (b, h) in (0..new.batch).flat_map(|b| (0..new.heads).map(move |h| (b, h))) {
            for s in 0..self.pasts[b] {
                let past = past
                    .as_ref()
                    .filter(|p| {
                        (p.batch, p.heads, p.size) == (new.batch, new.heads, new.size) && s < p.seq
                    })
                    .ok_or_else(|| OpError::shape("the past does not fit the new keys"))?;
                all.row_mut(b, h, s).copy_from_slice(past.row(b, h, s));
            }
            for s in 0..new.seq.min(self.present - self.pasts[b]) {
                all.row_mut(b, h, self.pasts[b] + s).copy_from_slice(new.row(b, h, s));
            }
        }
        Ok(all)
    }
}

/// The input that is added to the scores.
fn added_bias(
    bias: Option<&Tensor>,
    [batch, heads, seq, _]: [usize; 4],
) -> Result<impl Fn(usize, usize, usize, usize) -> f32, OpError> {
    let bias = bias.map(Dense::read).transpose()?;
    let target = [batch, heads, seq, bias.as_ref().map_or(1, Dense::last)];
    let steps = match &bias {
        Some(bias) if broadcast::shapes(&bias.shape, &target)? != target => {
            return Err(OpError::shape(format!("an attention bias {:?}", bias.shape)));
        }
        Some(bias) => broadcast::strides(&bias.shape, &target),
        None => vec![0; 4],
    };
    let at = move |b, h, i, j| b * steps[0] + h * steps[1] + i * steps[2] + j * steps[3];
    Ok(move |b: usize, h: usize, i: usize, j: usize| match &bias {
        Some(bias) if j < bias.last() => bias.data[at(b, h, i, j)],
        _ => 0.0,
    })
}
