//! Attention.

mod decomposed;
mod grouped_query;
mod heads;
mod mask_terms;
mod multi_head;
mod unmerge;

use planish_ir::{Model, Node, ValueId};

use crate::pass::{PassContext, PassError};
pub(super) use grouped_query::padding_mask;
use heads::Heads;

/// More heads than any model has; products of their number and size stay far from overflow.
const MAX_HEADS: i64 = 1 << 16;

/// Lifts decomposed attention, `Attention` on four axes or with expanded KV heads, and ONNX
/// Runtime's `GroupQueryAttention` to `Attention` on three axes with grouped heads and its cache.
pub(super) fn lift_attention(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let mut n_rewrites = grouped_query::lift(model, context)?;
    n_rewrites += unmerge::unmerge_heads(model, context)?;
    let mut facts = context.infer(model)?;
    let graph = &mut model.graph;
    for id in graph.node_ids().collect::<Vec<_>>() {
        if !graph.contains_node(id) {
            continue;
        }
        let node = graph.node(id);
        let parts = match node.op_type.as_str() {
            "Attention" if node.domain.is_empty() => Ok(of_attention(node)),
            "MatMul" if node.domain.is_empty() => decomposed::parts(graph, &mut facts, id),
            _ => continue,
        };
        let rebuilt = parts.and_then(|parts| match parts {
            Some(parts) => Heads { graph, facts: &facts }.rebuild(id, &parts).map(|()| 1),
            None => Ok(0),
        });
        match rebuilt {
            Ok(n) => n_rewrites += n,
            Err(reason) => {
                let name = graph.node(id).describe();
                context.note(format!("lift_attention at {name}: {reason}"));
            }
        }
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// What an attention computes: softmax(soft cap(scale · q kᵀ) + mask) v, heads on axis 1.
#[derive(Debug, Clone)]
struct Parts {
    q: ValueId,
    k: ValueId,
    v: ValueId,
    mask: Option<ValueId>,
    scale: Option<f32>,
    softcap: f32,
    is_causal: bool,
}

/// The parts of an `Attention` on four axes without a cache of its own.
fn of_attention(node: &Node) -> Option<Parts> {
    let is_plain = node.input(4).is_none()
        && node.input(5).is_none()
        && node.outputs.iter().skip(1).flatten().next().is_none()
        && node.int("q_num_heads", 0) == 0;
    if !is_plain {
        return None;
    }
    let scale = node.attributes.get("scale").and_then(|a| a.as_float()).filter(|s| *s != 0.0);
    Some(Parts {
        q: node.input(0)?,
        k: node.input(1)?,
        v: node.input(2)?,
        mask: node.input(3),
        scale,
        softcap: node.float("softcap", 0.0),
        is_causal: node.int("is_causal", 0) != 0,
    })
}

/// The canonical node.
#[allow(clippy::too_many_arguments)]
fn attention_node(
    inputs: [Option<ValueId>; 6],
    q_heads: i64,
    kv_heads: i64,
    scale: f32,
    softcap: f32,
    is_causal: bool,
) -> Node {
    Node::new("Attention", inputs.to_vec())
        .with("q_num_heads", q_heads)
        .with("kv_num_heads", kv_heads)
        .with("scale", scale)
        .with("softcap", softcap)
        .with("is_causal", i64::from(is_causal))
}
