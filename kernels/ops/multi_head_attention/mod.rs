//! com.microsoft's `MultiHeadAttention`: ONNX's `Attention` with as many key heads as query heads,
//! a bias for the three projections, and the mask behind it. What `onnxruntime-genai`'s builder writes
//! where its provider has no `GroupQueryAttention`.

use planish_ir::{Node, Tensor};

use super::attention;
use super::support::{Dense, facts};
use crate::op::{optional, required};
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("MultiHeadAttention", infer, eval).in_domain(MICROSOFT)];

/// Inputs of `Attention`: query, key, value, mask, past key, past value.
const INPUTS: [usize; 6] = [0, 1, 2, 5, 6, 7];
/// The version of `Attention` that it is told in.
const OPSET: i64 = 23;

/// The same as `Attention`, but for the bias.
fn as_attention(op: &OpNode) -> Result<Node, OpError> {
    let heads = op.node.int("num_heads", 0);
    if heads <= 0 {
        return Err(OpError::unsupported("attribute num_heads must be positive"));
    }
    let node = Node::new("Attention", INPUTS.map(|index| op.node.input(index)).to_vec());
    let node = node
        .with("q_num_heads", heads)
        .with("kv_num_heads", heads)
        .with("is_causal", op.node.int("unidirectional", 0))
        .with_outputs(op.node.outputs.clone());
    Ok(match op.node.float("scale", 0.0) {
        0.0 => node,
        scale => node.with("scale", scale),
    })
}

/// Refuses the forms that are not computed here.
fn check_form(is_there: impl Fn(usize) -> bool, rank: usize) -> Result<(), OpError> {
    if rank != 3 || !is_there(1) || !is_there(2) {
        return Err(OpError::unsupported("MultiHeadAttention of queries, keys and values in one"));
    }
    if is_there(4) || is_there(8) || is_there(9) {
        return Err(OpError::unsupported(
            "MultiHeadAttention with a mask of keys, or a cache longer than what is in it",
        ));
    }
    Ok(())
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let query = facts::required(inputs, 0)?;
    let unknown = |_| Fact::new(query.dtype, None);
    let rank = query.rank().unwrap_or(3);
    if check_form(|index| facts::optional(inputs, index).is_some(), rank).is_err() {
        return Ok((0..op.n_outputs()).map(unknown).collect());
    }
    let node = as_attention(op)?;
    let at = |index: usize| inputs.get(index).cloned().unwrap_or_else(Fact::absent);
    (attention::OPS[0].infer)(&OpNode { node: &node, opset: OPSET }, &INPUTS.map(at))
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let rank = required(inputs, 0)?.shape().len();
    check_form(|index| optional(inputs, index).is_some(), rank)?;
    let node = as_attention(op)?;
    let mut given = INPUTS.map(|index| inputs.get(index).cloned().flatten());
    if let Some(bias) = optional(inputs, 3) {
        add_bias(&mut given[..3], bias)?;
    }
    (attention::OPS[0].eval)(&OpNode { node: &node, opset: OPSET }, &given)
}

/// Adds to queries, keys and values their parts of the bias, which lie one behind the other.
fn add_bias(projections: &mut [Option<Tensor>], bias: &Tensor) -> Result<(), OpError> {
    let bias = bias.to_f32_vec()?;
    let mut rest = bias.as_slice();
    for projection in projections.iter_mut().flatten() {
        let dtype = projection.dtype();
        let mut x = Dense::read(projection)?;
        let width = x.last();
        let part = rest.split_at_checked(width);
        let (part, behind) = part.ok_or_else(|| OpError::shape("its bias is too short"))?;
        for row in x.data.chunks_mut(width.max(1)) {
            row.iter_mut().zip(part).for_each(|(x, b)| *x += b);
        }
        *projection = x.into_tensor(dtype)?;
        rest = behind;
    }
    if rest.is_empty() { Ok(()) } else { Err(OpError::shape("its bias is too long")) }
}
