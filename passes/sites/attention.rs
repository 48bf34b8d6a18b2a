//! What can be done to the heads of an attention.

use planish_ir::{Graph, NodeId, ValueId};
use planish_kernels::infer::Facts;

use super::{AttentionSite, HeadTransform, LinearId, LinearLayer, Part};

/// Head counts and sizes of an `Attention` node, or why it can't be worked on.
pub(super) fn attention_site(
    graph: &Graph,
    facts: &Facts,
    linears: &[LinearLayer],
    id: NodeId,
) -> Result<AttentionSite, String> {
    let node = graph.node(id);
    let (Some(query), Some(key), Some(value)) = (node.input(0), node.input(1), node.input(2))
    else {
        return Err("an input is absent".into());
    };
    let heads = |name| usize::try_from(node.int(name, 0)).unwrap_or(0);
    let (q_heads, kv_heads) = (heads("q_num_heads"), heads("kv_num_heads"));
    let head_size = head_size(facts, query, q_heads)?;
    let v_head_size = self::head_size(facts, value, kv_heads)?;
    if self::head_size(facts, key, kv_heads)? != head_size || !q_heads.is_multiple_of(kv_heads) {
        return Err("the heads of queries and keys do not go together".into());
    }
    let head_transform = head_transform(graph, linears, query, key);
    Ok(AttentionSite { node: id, q_heads, kv_heads, head_size, v_head_size, head_transform })
}

fn head_size(facts: &Facts, value: ValueId, n_heads: usize) -> Result<usize, String> {
    let fact = facts.get(value);
    if fact.rank() != Some(3) {
        return Err("its inputs do not have three axes".into());
    }
    let channels = fact.dim(-1).and_then(|dim| dim.as_usize());
    let divided = channels.filter(|c| n_heads > 0 && *c > 0 && c.is_multiple_of(n_heads));
    divided.map(|c| c / n_heads).ok_or_else(|| "the size of its heads is not known".to_owned())
}

fn head_transform(
    graph: &Graph,
    linears: &[LinearLayer],
    query: ValueId,
    key: ValueId,
) -> Result<HeadTransform, String> {
    for (value, what) in [(query, "queries"), (key, "keys")] {
        if !is_read_once(graph, value) {
            return Err(format!("its {what} are read by other nodes too"));
        }
    }
    let parts = find_part(linears, query).zip(find_part(linears, key));
    Ok(match parts {
        Some((query, key)) => HeadTransform::Folded { query, key },
        None => HeadTransform::Online,
    })
}

/// Whether `value` has one reader and is no output of the graph.
pub(super) fn is_read_once(graph: &Graph, value: ValueId) -> bool {
    graph.users(value).len() == 1 && !graph.is_output(value)
}

/// The columns of a linear layer that `value` consists of.
pub(super) fn find_part(linears: &[LinearLayer], value: ValueId) -> Option<Part> {
    linears.iter().enumerate().find_map(|(index, linear)| {
        let (_, columns) = linear.parts.iter().find(|(part, _)| *part == value)?;
        Some(Part { linear: LinearId(index), columns: columns.clone() })
    })
}
