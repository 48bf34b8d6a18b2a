//! The CUDA engine's `RotaryCachedAttention`: `RotaryEmbedding` of queries and keys, an optional
//! `TransformHeads` of each, and `CachedAttention` as one operator, whose kernel writes rotated,
//! transformed, quantised keys straight to the cache. Inputs: Q, K, V, cos, sin `[b or 1, s, d/2]`,
//! P of the queries?, P of the keys?, padding mask?. Attributes: those of `CachedAttention`, and
//! `interleaved` and `rotary_embedding_dim` of `RotaryEmbedding`.

use planish_ir::{Attribute, Node, Tensor};

use super::support::facts;
use crate::op::{optional, required};
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode, ops};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("RotaryCachedAttention", infer, eval)
    .in_domain(DOMAIN)
    .with_cuda(super::cached_attention::cuda::rotary)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    (1..5).try_for_each(|i| facts::required(inputs, i).map(drop))?;
    facts::same_as_first(inputs)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let prepared = |x: usize, heads: &str, matrix: usize| -> Result<Option<Tensor>, OpError> {
        let mut rotary = Node::new("RotaryEmbedding", Vec::new());
        rotary.attributes.clone_from(&op.node.attributes);
        let n_heads = Attribute::from(op.node.int(heads, 0));
        rotary.attributes.insert("num_heads".into(), n_heads);
        let given = [x, 3, 4].map(|i| optional(inputs, i).cloned());
        let rotated = run("", &rotary, 23, &given)?;
        match optional(inputs, matrix) {
            Some(p) => {
                let transform = Node::new("TransformHeads", Vec::new());
                run(DOMAIN, &transform, 1, &[Some(rotated), Some(p.clone())]).map(Some)
            }
            None => Ok(Some(rotated)),
        }
    };
    let (q, k) = (prepared(0, "q_num_heads", 5)?, prepared(1, "kv_num_heads", 6)?);
    let v = Some(required(inputs, 2)?.clone());
    let mut attention = Node::new("CachedAttention", Vec::new());
    attention.attributes.clone_from(&op.node.attributes);
    let y = run(DOMAIN, &attention, 1, &[q, k, v, optional(inputs, 7).cloned()])?;
    Ok(vec![y])
}

/// The first output of an operator.
fn run(
    domain: &str,
    node: &Node,
    opset: i64,
    inputs: &[Option<Tensor>],
) -> Result<Tensor, OpError> {
    let missing = || OpError::unsupported(format!("there is no {}", node.op_type));
    let op = ops::find(domain, &node.op_type).ok_or_else(missing)?;
    (op.eval)(&OpNode { node, opset }, inputs)?.into_iter().next().ok_or_else(missing)
}
