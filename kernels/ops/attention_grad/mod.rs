//! planish's `AttentionGrad`: the gradients of the queries, keys and values of ONNX's `Attention`
//! without a past, from that of its result. The probabilities are computed anew.
//!
//! Inputs dY, Q, K, V and, as `Attention` has it, a mask that is bool or is added to the scores;
//! attributes as those of `Attention`; outputs dQ, dK, dV.

use planish_ir::Tensor;

use super::attention::dense;
use super::attention::mask::Mask;
use super::support::heads::{self, Heads};
use super::support::{Dense, facts};
use crate::op::{optional, required};
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod function;
mod plain;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("AttentionGrad", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_function(function::function)];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (q_heads, kv_heads) = (op.node.int("q_num_heads", 0), op.node.int("kv_num_heads", 0));
    facts::required(inputs, 0)?;
    let like = |(index, heads): (usize, i64)| {
        let fact = facts::required(inputs, index)?;
        heads::dims(fact, heads)?;
        Ok(facts::like(fact))
    };
    let outputs = [(1, q_heads), (2, kv_heads), (3, kv_heads)].into_iter().map(like);
    outputs.take(op.n_outputs()).collect()
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let count = |name| usize::try_from(op.node.int(name, 0)).unwrap_or(0);
    let (q_heads, kv_heads) = (count("q_num_heads"), count("kv_num_heads"));
    let read = |i, n| Heads::read(Dense::read(required(inputs, i)?)?, n);
    let (dy, q) = (read(0, q_heads)?, read(1, q_heads)?);
    let (k, v) = (read(2, kv_heads)?, read(3, kv_heads)?);
    let given = [None, None, None, optional(inputs, 4).cloned()];
    let mask = Mask::new(op, &given, [q.batch, q.heads, q.seq, k.seq], 0)?;
    let (scale, softcap) = (dense::scale(op, q.size), op.node.float("softcap", 0.0));
    let gradients = plain::gradients([&dy, &q, &k, &v], [scale, softcap], &mask)?;
    let back = |(heads, i): (Heads, usize)| {
        let like = required(inputs, i)?;
        let x = if like.shape().len() == 3 { heads.into_3d() } else { heads.into_4d() };
        x.into_tensor(like.dtype())
    };
    gradients.into_iter().zip(1..).take(op.n_outputs()).map(back).collect()
}
