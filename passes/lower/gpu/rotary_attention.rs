//! Rotary embeddings, transforms of heads and the cached attention that reads them become
//! `planish.RotaryCachedAttention`.

use planish_ir::{Graph, Model, Node, NodeId, ValueId};
use planish_kernels::DOMAIN;

use crate::pass::{PassContext, PassError};

pub(super) fn fuse_rotary_attention(
    model: &mut Model,
    _: &mut PassContext,
) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let is_attention = |id: &NodeId| is_ours(graph.node(*id), "CachedAttention");
    let nodes: Vec<NodeId> = graph.node_ids().filter(is_attention).collect();
    let n_rewrites = nodes.into_iter().filter(|id| fuse(graph, *id).is_some()).count();
    graph.remove_dead();
    Ok(n_rewrites)
}

/// What leads to queries or keys.
#[derive(PartialEq)]
struct Rotated {
    x: ValueId,
    matrix: Option<ValueId>,
    angles: [ValueId; 2],
    interleaved: i64,
    dim: i64,
    heads: i64,
}

fn fuse(graph: &mut Graph, id: NodeId) -> Option<()> {
    let node = graph.node(id);
    let (q, k) = (rotated(graph, node.input(0)?)?, rotated(graph, node.input(1)?)?);
    let same = q.angles == k.angles && q.interleaved == k.interleaved && q.dim == k.dim;
    let fits = q.heads == node.int("q_num_heads", 0) && k.heads == node.int("kv_num_heads", 0);
    if !same || !fits {
        return None;
    }
    let mut fused = graph.remove_node(id);
    let mask = fused.input(3);
    fused.inputs = vec![
        Some(q.x),
        Some(k.x),
        fused.input(2),
        Some(q.angles[0]),
        Some(q.angles[1]),
        q.matrix,
        k.matrix,
        mask,
    ];
    fused.op_type = "RotaryCachedAttention".into();
    let fused = fused.with("interleaved", q.interleaved).with("rotary_embedding_dim", q.dim);
    graph.add_node(fused).expect("the output was just freed");
    Some(())
}

/// The rotary embedding, and the transform after it, that give `value` to the attention alone.
fn rotated(graph: &Graph, value: ValueId) -> Option<Rotated> {
    let (id, _) = graph.producer(value)?;
    let last = graph.node(id);
    let (rotary, matrix) = match is_ours(last, "TransformHeads") {
        true => {
            let (id, _) = graph.producer(last.input(0)?)?;
            (graph.node(id), Some(last.input(1)?))
        }
        false => (last, None),
    };
    let has_ids = rotary.input(3).is_some();
    if !rotary.is("RotaryEmbedding") || has_ids {
        return None;
    }
    Some(Rotated {
        x: rotary.input(0)?,
        matrix,
        angles: [rotary.input(1)?, rotary.input(2)?],
        interleaved: rotary.int("interleaved", 0),
        dim: rotary.int("rotary_embedding_dim", 0),
        heads: rotary.int("num_heads", 0),
    })
}

fn is_ours(node: &Node, op_type: &str) -> bool {
    node.domain == DOMAIN && node.op_type == op_type
}

#[cfg(test)]
mod tests {
    use planish_ir::Tensor;

    use super::super::super::testing::{Lowered, lowered};
    use super::*;

    fn attention(key_cos: usize, transformed: bool) -> Lowered {
        let rows = &["b", "s", "8"][..];
        let angles = &["1", "s", "2"][..];
        let inputs =
            [("q", rows), ("k", rows), ("v", rows), ("c", angles), ("s", angles), ("c2", angles)];
        lowered(fuse_rotary_attention, &inputs, |graph, x| {
            let p = graph.add_constant("p", Tensor::from_vec(&[4, 4], vec![1f32; 16]));
            let mut prepared = |value: ValueId, cos: usize| {
                let inputs = vec![Some(value), Some(x[cos]), Some(x[4])];
                let rotary = Node::new("RotaryEmbedding", inputs).with("num_heads", 2i64);
                let y = graph.add_op("r", rotary);
                if !transformed {
                    return y;
                }
                let node = Node::new("TransformHeads", vec![Some(y), Some(p)]).with_domain(DOMAIN);
                graph.add_op("t", node)
            };
            let (q, k) = (prepared(x[0], 3), prepared(x[1], key_cos));
            let node = Node::new("CachedAttention", vec![Some(q), Some(k), Some(x[2])])
                .with_domain(DOMAIN)
                .with("q_num_heads", 2i64)
                .with("kv_num_heads", 2i64);
            graph.add_op("y", node)
        })
    }

    #[test]
    fn what_leads_to_the_cache_becomes_one_operator() {
        for transformed in [false, true] {
            let lowered = attention(3, transformed);
            assert_eq!(lowered.ops(), ["planish.RotaryCachedAttention"]);
            let matrix = lowered.node("RotaryCachedAttention").input(5);
            assert_eq!(matrix.is_some(), transformed);
        }
    }

    #[test]
    fn queries_and_keys_of_different_angles_are_left_alone() {
        assert_eq!(attention(5, false).ops().len(), 3);
    }
}
