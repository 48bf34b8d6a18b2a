//! The fast form of `Attention`, for f32.

use planish_cpu::{AttentionInputs, HeadLayout, Isa, attention_forward};
use planish_ir::Tensor;

use super::dense::{self, Hiding};
use crate::buffers::Buffer;
use crate::ops::support::{fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    if op.wants(3) {
        return Ok(None);
    }
    fast::kernel(op, run, super::eval)
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
    let layouts = [(0, q_heads), (1, kv_heads), (2, kv_heads)];
    let [Some(of_q), Some(of_k), Some(of_v)] = layouts.map(|(i, n)| dense::layout(shape(i), n))
    else {
        return Ok(None);
    };
    let Some(of_y) = dense::result(of_q, of_k, of_v) else { return Ok(None) };
    let attend = |k: &[f32], v: &[f32], of_k: HeadLayout, of_v: HeadLayout| {
        let scores = [of_q.batch, of_q.heads, of_q.rows, of_k.rows];
        let (mask, lengths) = (fast::input(inputs, 3), fast::input(inputs, 6));
        let n_past = shape(4).get(2).copied().unwrap_or(0);
        let hiding = match lengths {
            None => Hiding::new(op, mask, scores, n_past)?,
            Some(_) => Hiding::element_by_element(op, [lengths, mask], scores, n_past)?,
        };
        let spec = hiding.attention(op, [of_q, of_k, of_v, of_y]);
        rows::f32_output(context, dense::shape(&of_y), |y| {
            attention_forward(context.pool, Isa::best(), &spec, AttentionInputs { q: &q, k, v }, y);
        })
    };
    let has_past = fast::input(inputs, 4).is_some() || fast::input(inputs, 5).is_some();
    if !has_past && op.n_outputs() == 1 {
        return Ok(Some(vec![attend(&k, &v, of_k, of_v)?]));
    }
    let presents =
        (present(context, (&k, of_k), inputs, 4)?, present(context, (&v, of_v), inputs, 5)?);
    let (Some((mut keys, of_k)), Some((mut values, of_v))) = presents else { return Ok(None) };
    // The reference says what is wrong with pasts of two lengths.
    if of_k.rows != of_v.rows {
        return Ok(None);
    }
    let y = attend(keys.as_mut(), values.as_mut(), of_k, of_v)?;
    let keys = context.f32_tensor(keys, dense::shape(&of_k))?;
    let values = context.f32_tensor(values, dense::shape(&of_v))?;
    Ok(Some([y, keys, values].into_iter().take(op.n_outputs()).collect()))
}

/// Past and new rows of every head, `[b, heads, total, d]`, and their layout; `None` if the past
/// does not fit.
fn present(
    context: &CpuContext,
    (data, new): (&[f32], HeadLayout),
    inputs: &[Option<&Tensor>],
    index: usize,
) -> Result<Option<(Buffer, HeadLayout)>, OpError> {
    let past = fast::f32s(inputs, index);
    let n_past = match fast::input(inputs, index).map(Tensor::shape) {
        None => 0,
        Some(&[b, h, n, d]) if (b, h, d) == (new.batch, new.heads, new.dim) && past.is_some() => n,
        Some(_) => return Ok(None),
    };
    let layout = HeadLayout { rows: n_past + new.rows, head_major: true, ..new };
    let (old_len, new_len) = (n_past * new.dim, new.rows * new.dim);
    let mut buffer = context.f32s(layout.n_elements())?;
    let heads = buffer.as_mut::<f32>().chunks_exact_mut((old_len + new_len).max(1));
    for (i, head) in heads.enumerate() {
        let (old, rest) = head.split_at_mut(old_len);
        if let Some(past) = &past {
            old.copy_from_slice(&past[i * old_len..(i + 1) * old_len]);
        }
        for (s, row) in rest.chunks_exact_mut(new.dim.max(1)).enumerate() {
            let start = new.start(i / new.heads, i % new.heads, s);
            row.copy_from_slice(&data[start..start + new.dim]);
        }
    }
    Ok(Some((buffer, layout)))
}
