//! `Attention` (opsets 23 to 25): scaled dot-product attention with grouped heads, masks, a past
//! and a soft cap. Causal masks are aligned to the end: query i sees keys up to past + i (or, with
//! `nonpad_kv_seqlen`, up to that length − queries + i), as ONNX 1.23 and ONNX Runtime 1.32 have it.

use planish_ir::{Dim, Tensor};

use super::support::attend::{Scoring, Stage, attend};
use super::support::heads::{self, Heads};
use super::support::{Dense, facts};
use crate::op::{optional, required};
use crate::{Fact, OpDef, OpError, OpNode};

use mask::Mask;

mod cpu;
pub(super) mod cuda;
pub(super) mod dense;
mod grad;
pub(super) mod mask;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("Attention", infer, eval)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_grad(grad::grad)];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let fact = |i| facts::required(inputs, i);
    let (q_heads, kv_heads) = (op.node.int("q_num_heads", 0), op.node.int("kv_num_heads", 0));
    let q = heads::dims(fact(0)?, q_heads)?;
    let (k, v) = (heads::dims(fact(1)?, kv_heads)?, heads::dims(fact(2)?, kv_heads)?);
    let (Some([b, qh, s, _]), Some([_, kh, new, kd]), Some([.., vd])) = (q, k, v) else {
        let unknown = |_| Fact::new(inputs[0].dtype, None);
        return Ok((0..op.n_outputs()).map(unknown).collect());
    };
    if facts::optional(inputs, 4).is_some() != facts::optional(inputs, 5).is_some() {
        return Err(OpError::shape("past_key and past_value are given together or not at all"));
    }
    let past = match facts::optional(inputs, 4) {
        None => Some(Dim::from(0i64)),
        Some(past) => past.dim(2).cloned(),
    };
    let total = past.map(|past| past.add(&new));
    let y = match inputs[0].rank() {
        Some(3) => vec![b.clone(), s.clone(), qh.mul(&vd)],
        _ => vec![b.clone(), qh.clone(), s.clone(), vd.clone()],
    };
    let cache = |d: &Dim| Some(vec![b.clone(), kh.clone(), total.clone()?, d.clone()]);
    let scores = total.clone().map(|t| vec![b.clone(), qh.clone(), s.clone(), t]);
    let shapes = [Some(y), cache(&kd), cache(&vd), scores];
    let of = |shape| Fact::new(inputs[0].dtype, shape);
    Ok(shapes.into_iter().map(of).take(op.n_outputs()).collect())
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let count = |name| usize::try_from(op.node.int(name, 0)).unwrap_or(0);
    let dtype = required(inputs, 0)?.dtype();
    let is_3d = required(inputs, 0)?.shape().len() == 3;
    let read = |i, n| Heads::read(Dense::read(required(inputs, i)?)?, n);
    let past = |i| optional(inputs, i).map(|t| Heads::read(Dense::read(t)?, 0)).transpose();
    let q = read(0, count("q_num_heads"))?;
    let k = read(1, count("kv_num_heads"))?.after(past(4)?)?;
    let v = read(2, count("kv_num_heads"))?.after(past(5)?)?;
    let n_past = optional(inputs, 4).map_or(0, |t| t.shape()[2]);
    let mask = Mask::new(op, inputs, [q.batch, q.heads, q.seq, k.seq], n_past)?;
    let scoring = Scoring {
        scale: dense::scale(op, q.size),
        softcap: op.node.float("softcap", 0.0),
        bias: &|b, h, i, j| mask.bias(b, h, i, j),
    };
    let (y, scores) = attend(&q, &k, &v, scoring, stage(op)?)?;
    let y = if is_3d { y.into_3d() } else { y.into_4d() };
    let outputs = [y, k.into_4d(), v.into_4d(), scores.into_4d()];
    outputs.into_iter().take(op.n_outputs()).map(|t| t.into_tensor(dtype)).collect()
}

/// Which step of the way the fourth output shows, as ONNX numbers them.
fn stage_number(op: &OpNode) -> Result<i32, OpError> {
    stage(op).map(|stage| stage as i32)
}

fn stage(op: &OpNode) -> Result<Stage, OpError> {
    match op.node.int("qk_matmul_output_mode", 0) {
        0 => Ok(Stage::Product),
        1 => Ok(Stage::Capped),
        2 => Ok(Stage::Biased),
        3 => Ok(Stage::Softmax),
        other => Err(OpError::unsupported(format!("qk_matmul_output_mode {other} is unknown"))),
    }
}
