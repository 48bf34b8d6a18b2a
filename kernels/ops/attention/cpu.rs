//! The fast form of `Attention`: products of matrices head by head, for f32.

use planish_cpu::{Isa, MatMut, MatRef, sgemm, softmax_rows};
use planish_ir::Tensor;

use super::mask::Mask;
use crate::buffers::Buffer;
use crate::ops::support::{fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    if op.wants(3) {
        return Ok(None);
    }
    fast::kernel(op, run, super::eval)
}

/// Where the heads of an input lie: `[b, heads, s, d]` or `[b, s, heads · d]`.
#[derive(Clone, Copy)]
struct View<'a> {
    data: &'a [f32],
    batch: usize,
    heads: usize,
    seq: usize,
    size: usize,
    is_3d: bool,
}

impl<'a> View<'a> {
    fn new(data: &'a [f32], shape: &[usize], heads: usize) -> Option<Self> {
        match *shape {
            [batch, heads, seq, size] => Some(Self { data, batch, heads, seq, size, is_3d: false }),
            [batch, seq, hidden] if heads > 0 && hidden % heads == 0 => {
                Some(Self { data, batch, heads, seq, size: hidden / heads, is_3d: true })
            }
            _ => None,
        }
    }

    /// The first element and the row step of a head.
    fn place(&self, b: usize, h: usize) -> (usize, usize) {
        if self.is_3d {
            let width = self.heads * self.size;
            (b * self.seq * width + h * self.size, width)
        } else {
            ((b * self.heads + h) * self.seq * self.size, self.size)
        }
    }

    fn head(&self, b: usize, h: usize) -> MatRef<'a> {
        let (start, step) = self.place(b, h);
        let data = self.data.get(start..).unwrap_or_default();
        MatRef::with_stride(data, self.seq, self.size, step)
    }
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(|i| fast::f32s(inputs, i)) else {
        return Ok(None);
    };
    let shape = |i: usize| fast::input(inputs, i).map_or(&[][..], Tensor::shape);
    let count = |name| usize::try_from(op.node.int(name, 0)).unwrap_or(0);
    let (q_heads, kv_heads) = (count("q_num_heads"), count("kv_num_heads"));
    let views = (
        View::new(&q, shape(0), q_heads),
        View::new(&k, shape(1), kv_heads),
        View::new(&v, shape(2), kv_heads),
    );
    let (Some(q), Some(k), Some(v)) = views else { return Ok(None) };
    let fits = q.size == k.size
        && (q.batch, k.batch) == (k.batch, v.batch)
        && (k.heads, k.seq) == (v.heads, v.seq)
        && k.heads > 0
        && q.heads.is_multiple_of(k.heads);
    if !fits {
        return Ok(None);
    }
    let n_past = shape(4).get(2).copied().unwrap_or(0);
    // The reference says what is wrong with pasts of two lengths.
    if shape(5).get(2).copied().unwrap_or(0) != n_past {
        return Ok(None);
    }
    let (Some(mut keys), Some(mut values)) =
        (present(context, k, inputs, 4)?, present(context, v, inputs, 5)?)
    else {
        return Ok(None);
    };
    let total = n_past + k.seq;
    let owned: Vec<Option<Tensor>> = inputs.iter().map(|t| t.cloned()).collect();
    let mask = Mask::new(op, &owned, [q.batch, q.heads, q.seq, total], n_past)?;
    let (key_shape, value_shape) =
        (vec![k.batch, k.heads, total, k.size], vec![v.batch, v.heads, total, v.size]);
    let all =
        (View::new(keys.as_mut(), &key_shape, 0), View::new(values.as_mut(), &value_shape, 0));
    let (Some(k), Some(v)) = all else { return Ok(None) };
    let y = attend(op, context, [q, k, v], &mask)?;
    let outputs =
        [y, context.f32_tensor(keys, key_shape)?, context.f32_tensor(values, value_shape)?];
    Ok(Some(outputs.into_iter().take(op.n_outputs()).collect()))
}

/// Past and new rows of every head, `[b, heads, total, d]`.
fn present(
    context: &CpuContext,
    new: View,
    inputs: &[Option<&Tensor>],
    index: usize,
) -> Result<Option<Buffer>, OpError> {
    let past = fast::f32s(inputs, index);
    let n_past = match fast::input(inputs, index).map(Tensor::shape) {
        None => 0,
        Some(&[b, h, n, d]) if (b, h, d) == (new.batch, new.heads, new.size) && past.is_some() => n,
        Some(_) => return Ok(None),
    };
    let (old_len, new_len) = (n_past * new.size, new.seq * new.size);
    let mut buffer = context.f32s(new.batch * new.heads * (old_len + new_len))?;
    let heads = buffer.as_mut::<f32>().chunks_exact_mut((old_len + new_len).max(1));
    for (i, head) in heads.enumerate() {
        let (old, rest) = head.split_at_mut(old_len);
        if let Some(past) = &past {
            old.copy_from_slice(&past[i * old_len..(i + 1) * old_len]);
        }
        let (start, step) = new.place(i / new.heads, i % new.heads);
        for (s, row) in rest.chunks_exact_mut(new.size.max(1)).enumerate() {
            row.copy_from_slice(&new.data[start + s * step..][..new.size]);
        }
    }
    Ok(Some(buffer))
}

fn attend(
    op: &OpNode,
    context: &CpuContext,
    [q, k, v]: [View; 3],
    mask: &Mask,
) -> Result<Tensor, OpError> {
    let scale = op.node.float("scale", 1.0 / (q.size as f32).sqrt());
    let softcap = op.node.float("softcap", 0.0);
    let shape = match q.is_3d {
        true => vec![q.batch, q.seq, q.heads * v.size],
        false => vec![q.batch, q.heads, q.seq, v.size],
    };
    let n_scores = q.seq * k.seq;
    let (mut scores, mut weights) = (context.f32s(n_scores)?, context.f32s(n_scores)?);
    let (scores, weights) = (scores.as_mut::<f32>(), weights.as_mut::<f32>());
    let (pool, isa) = (context.pool, Isa::best());
    rows::f32_output(context, shape, |y| {
        let out = View { data: &[], size: v.size, ..q };
        for (b, h) in (0..q.batch).flat_map(|b| (0..q.heads).map(move |h| (b, h))) {
            let kv_head = h / (q.heads / k.heads);
            let target = MatMut::new(scores, q.seq, k.seq);
            sgemm(pool, isa, scale, q.head(b, h), k.head(b, kv_head).t(), 0.0, target);
            for (i, score) in scores.iter_mut().enumerate() {
                let capped =
                    if softcap > 0.0 { softcap * (*score / softcap).tanh() } else { *score };
                *score = capped + mask.bias(b, h, i / k.seq, i % k.seq);
            }
            softmax_rows(pool, isa, scores, k.seq, weights);
            let (start, step) = out.place(b, h);
            let target = MatMut::with_stride(&mut y[start..], q.seq, v.size, step);
            let weights = MatRef::new(weights, q.seq, k.seq);
            sgemm(pool, isa, 1.0, weights, v.head(b, kv_head), 0.0, target);
        }
    })
}
