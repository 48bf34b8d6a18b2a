//! The engine's `CachedAttention`: appends keys and values to the session's cache of the layer,
//! and attends over all of it. Each sequence of the batch has a cache of its own; an optional
//! mask `[b, total]` hides padding.
//!
//! The reference evaluation has no session: it starts from an empty cache.

use planish_ir::{DataType, Tensor};

use super::support::attend::{Scoring, Stage, attend};
use super::support::heads::Heads;
use super::support::quant::Quantiser;
use super::support::{Dense, facts};
use crate::op::{optional, required};
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
pub(in crate::ops) mod cuda;
mod spec;
#[cfg(test)]
mod tests;

use spec::Spec;

pub(super) static OPS: &[OpDef] = &[OpDef::new("CachedAttention", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    Spec::read(op)?;
    (1..3).try_for_each(|i| facts::required(inputs, i).map(drop))?;
    let mask = facts::optional(inputs, 3);
    mask.map_or(Ok(()), |mask| facts::of_type("the padding mask", mask, &[DataType::Bool]))?;
    facts::same_as_first(inputs)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let spec = Spec::read(op)?;
    let read = |i, heads| Heads::read(Dense::read(required(inputs, i)?)?, heads);
    let q = read(0, spec.q_heads)?;
    let k = cached(read(1, spec.kv_heads)?, spec.keys());
    let v = cached(read(2, spec.kv_heads)?, spec.values());
    let seen = optional(inputs, 3).map(|mask| mask.to_i64_vec()).transpose()?;
    if seen.as_ref().is_some_and(|seen| seen.len() != k.batch * k.seq) {
        return Err(OpError::shape("the padding mask does not fit the keys"));
    }
    let hidden = |b: usize, i: usize, j: usize| {
        (spec.is_causal && j > i)
            || (spec.window > 0 && j + spec.window <= i)
            || seen.as_ref().is_some_and(|seen| seen[b * k.seq + j] == 0)
    };
    let scoring = Scoring {
        scale: spec.scale_for(q.size),
        softcap: spec.softcap,
        bias: &|b, _, i, j| if hidden(b, i, j) { f32::NEG_INFINITY } else { 0.0 },
    };
    let (y, _) = attend(&q, &k, &v, scoring, Stage::Product)?;
    Ok(vec![y.into_3d().into_tensor(required(inputs, 0)?.dtype())?])
}

/// What the cache gives back of these heads.
fn cached(mut heads: Heads, quantiser: Option<Quantiser>) -> Heads {
    if let Some(quantiser) = quantiser {
        heads.data.chunks_exact_mut(heads.size.max(1)).for_each(|head| quantiser.round_trip(head));
    }
    heads
}
