//! `RotaryEmbedding`, ONNX's (opset 23) and com.microsoft's, which differ in the order of inputs.

use planish_ir::Tensor;

use super::support::Dense;
use super::support::facts;
use super::support::heads::Heads;
use super::support::rotary::{Angles, rotate_all};
use crate::op::{optional, required};
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("RotaryEmbedding", infer, eval)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::grad),
    OpDef::new("RotaryEmbedding", infer_microsoft, eval_microsoft)
        .with_cuda(cuda::microsoft)
        .in_domain(MICROSOFT),
];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::required(inputs, 1)?;
    facts::required(inputs, 2)?;
    facts::same_as_first(inputs)
}

fn infer_microsoft(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    (1..4).try_for_each(|i| facts::required(inputs, i).map(drop))?;
    facts::same_as_first(inputs)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let n_heads = op.node.int("num_heads", 0);
    let mut heads = Heads::read(Dense::read(x)?, usize::try_from(n_heads).unwrap_or(0))?;
    let rotated = match usize::try_from(op.node.int("rotary_embedding_dim", 0)) {
        Ok(dim) if dim > 0 => dim,
        _ => heads.size,
    };
    let (cos, sin) = (Dense::read(required(inputs, 1)?)?, Dense::read(required(inputs, 2)?)?);
    let angles = Angles::new(cos, sin, rotated / 2)?;
    let interleaved = op.node.int("interleaved", 0) != 0;
    match optional(inputs, 3) {
        Some(ids) => {
            let ids = position_ids(ids, heads.batch, heads.seq)?;
            let seq = heads.seq;
            rotate_all(&mut heads, &angles, interleaved, |b, s| ids[b * seq + s])?;
        }
        None => {
            let by_row = rows_by_position(&angles.cos.shape, heads.batch, heads.seq)?;
            rotate_all(&mut heads, &angles, interleaved, by_row)?;
        }
    }
    back(heads, x)
}

/// Rows of caches `[b or 1, s, d / 2]` for each batch and position.
fn rows_by_position(
    shape: &[usize],
    batch: usize,
    seq: usize,
) -> Result<impl Fn(usize, usize) -> i64 + use<>, OpError> {
    match *shape {
        [b, s, _] if (b == batch || b == 1) && s == seq => {
            let step = if b == 1 { 0 } else { s };
            Ok(move |batch: usize, position: usize| (batch * step + position) as i64)
        }
        _ => Err(OpError::shape(format!(
            "without position ids the caches must be [{batch}, {seq}, …], not {shape:?}"
        ))),
    }
}

/// Position ids `[b or 1, s]` as one list of `b · s`.
fn position_ids(ids: &Tensor, batch: usize, seq: usize) -> Result<Vec<i64>, OpError> {
    let values = ids.to_i64_vec()?;
    match *ids.shape() {
        [b, s] if b == batch && s == seq => Ok(values),
        [1, s] if s == seq => Ok(values.repeat(batch)),
        ref shape => Err(OpError::shape(format!(
            "position ids {shape:?} do not fit {batch} sequences of {seq}"
        ))),
    }
}

fn eval_microsoft(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (x, ids) = (required(inputs, 0)?, required(inputs, 1)?);
    let (cos, sin) = (Dense::read(required(inputs, 2)?)?, Dense::read(required(inputs, 3)?)?);
    let hidden = x.shape().last().copied().unwrap_or(0);
    let n_heads = match usize::try_from(op.node.int("num_heads", 0)) {
        Ok(n) if n > 0 => n,
        // Without a number of heads the caches tell the size of a head.
        _ => hidden / (2 * cos.last()).max(1),
    };
    let mut heads = Heads::read(Dense::read(x)?, n_heads)?;
    let half = cos.last();
    let angles = Angles::new(cos, sin, half)?;
    let interleaved = op.node.int("interleaved", 0) != 0;
    if ids.n_elements() == 1 && heads.seq * heads.batch != 1 {
        let first = ids.to_i64_vec()?[0];
        rotate_all(&mut heads, &angles, interleaved, |_, s| first + s as i64)?;
    } else {
        let ids = ids.reshaped(vec![heads.batch, heads.seq])?;
        let (ids, seq) = (position_ids(&ids, heads.batch, heads.seq)?, heads.seq);
        rotate_all(&mut heads, &angles, interleaved, |b, s| ids[b * seq + s])?;
    }
    back(heads, x)
}

/// In the layout and type of `x`.
fn back(heads: Heads, x: &Tensor) -> Result<Vec<Tensor>, OpError> {
    let y = if x.shape().len() == 3 { heads.into_3d() } else { heads.into_4d() };
    Ok(vec![y.into_tensor(x.dtype())?])
}
