//! The fast form of ONNX's `RotaryEmbedding`.

use planish_cpu::{Isa, RotarySpec, rotary};
use planish_ir::Tensor;

use super::{position_ids, rows_by_position};
use crate::buffers::Buffer;
use crate::ops::common::fallback::Fallback;
use crate::ops::support::held::{Held, View};
use crate::ops::support::{fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

struct Rotary {
    cos: Held,
    sin: Held,
    fallback: Fallback,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let (cos, sin) = (Held::new(constants, 1)?, Held::new(constants, 2)?);
    Ok(Some(Box::new(Rotary { cos, sin, fallback: Fallback::new(op, super::eval) })))
}

impl Kernel for Rotary {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let ((Ok(cos), Ok(sin)), Some(x)) =
            ((self.cos.get(inputs), self.sin.get(inputs)), fast::f32s(inputs, 0))
        else {
            return self.fallback.run(inputs);
        };
        match rotate(&self.fallback.op(), context, inputs, &x, [cos, sin])? {
            Some(y) => Ok(vec![y]),
            None => self.fallback.run(inputs),
        }
    }
}

/// Sizes of the input: `[b, s, heads · d]`, or `[b, heads, s, d]` as `b · heads` single heads.
struct Layout {
    batch: usize,
    seq: usize,
    spec: RotarySpec,
    /// Runs of `seq` rows for each sequence.
    runs: usize,
}

fn rotate(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
    data: &[f32],
    caches: [View; 2],
) -> Result<Option<Tensor>, OpError> {
    let shape = fast::input(inputs, 0).map_or(&[][..], Tensor::shape);
    let Some(layout) = layout(op, shape) else { return Ok(None) };
    let ids = fast::input(inputs, 3);
    let Some((mut cos, mut sin)) = tables(context, ids, caches, &layout)? else {
        return Ok(None);
    };
    let (cos, sin) = (&*cos.as_mut::<f32>(), &*sin.as_mut::<f32>());
    let run_len = layout.seq * layout.spec.n_heads * layout.spec.head_dim;
    let table_len = layout.seq * layout.spec.rotary_dim / 2;
    let y = rows::f32_output(context, shape.to_vec(), |y| {
        let (pool, isa) = (context.pool, Isa::best());
        if layout.runs == 1 {
            return rotary(pool, isa, data, layout.spec, cos, sin, y);
        }
        for (i, y) in y.chunks_exact_mut(run_len.max(1)).enumerate() {
            let at = i / layout.runs * table_len..(i / layout.runs + 1) * table_len;
            let x = &data[i * run_len..(i + 1) * run_len];
            rotary(pool, isa, x, layout.spec, &cos[at.clone()], &sin[at], y);
        }
    })?;
    Ok(Some(y))
}

fn layout(op: &OpNode, shape: &[usize]) -> Option<Layout> {
    let (batch, seq, n_heads, head_dim, runs) = match *shape {
        [batch, seq, hidden] => {
            let n = usize::try_from(op.node.int("num_heads", 0)).ok().filter(|n| *n > 0)?;
            (batch, seq, n, Some(hidden / n).filter(|d| d * n == hidden)?, 1)
        }
        [batch, heads, seq, head_dim] => (batch, seq, 1, head_dim, heads),
        _ => return None,
    };
    let rotary_dim = match usize::try_from(op.node.int("rotary_embedding_dim", 0)) {
        Ok(dim) if dim > 0 => dim,
        _ => head_dim,
    };
    let interleaved = op.node.int("interleaved", 0) != 0;
    let spec = RotarySpec { n_heads, head_dim, rotary_dim, interleaved };
    let is_sound = rotary_dim.is_multiple_of(2) && rotary_dim <= head_dim;
    is_sound.then_some(Layout { batch, seq, spec, runs })
}

/// The cosines and sines of all positions, `[b · s, rotary_dim / 2]`.
fn tables(
    context: &CpuContext,
    ids: Option<&Tensor>,
    [(cos, shape), (sin, _)]: [View; 2],
    layout: &Layout,
) -> Result<Option<(Buffer, Buffer)>, OpError> {
    let half = layout.spec.rotary_dim / 2;
    if shape.last() != Some(&half) || cos.len() != sin.len() {
        return Ok(None);
    }
    let (batch, seq) = (layout.batch, layout.seq);
    match ids {
        Some(ids) => {
            let ids = position_ids(ids, batch, seq)?;
            gather(context, [&cos, &sin], half, batch * seq, |i| ids[i])
        }
        None => {
            let row = rows_by_position(shape, batch, seq)?;
            gather(context, [&cos, &sin], half, batch * seq, |i| row(i / seq, i % seq))
        }
    }
}

fn gather(
    context: &CpuContext,
    [cos, sin]: [&[f32]; 2],
    half: usize,
    n: usize,
    row: impl Fn(usize) -> i64,
) -> Result<Option<(Buffer, Buffer)>, OpError> {
    let (mut cos_rows, mut sin_rows) = (context.f32s(n * half)?, context.f32s(n * half)?);
    for (from, to) in [(cos, cos_rows.as_mut::<f32>()), (sin, sin_rows.as_mut::<f32>())] {
        for (i, to) in to.chunks_exact_mut(half.max(1)).enumerate() {
            let start = usize::try_from(row(i)).ok().and_then(|row| row.checked_mul(half));
            let from = start.and_then(|start| from.get(start..)?.get(..half));
            to.copy_from_slice(from.ok_or_else(|| {
                OpError::shape(format!("position {} is outside the caches", row(i)))
            })?);
        }
    }
    Ok(Some((cos_rows, sin_rows)))
}
