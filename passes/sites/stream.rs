//! The residual stream: from the embedding to the logits.

use std::collections::{HashMap, HashSet};

use planish_ir::{Graph, NodeId, ValueId};
use planish_kernels::infer::Facts;

use super::dominators::Cone;

/// The values that everything on the way from the embedding to the logits goes through.
pub(super) struct Stream {
    /// What depends on the embedding.
    pub(super) cone: Cone,
    /// The stream, from the embedding's output to the logits.
    pub(super) chain: Vec<ValueId>,
    /// The nodes between neighbours of the chain that have a part in the later one, in
    /// topological order: one list fewer than the chain has values.
    pub(super) segments: Vec<Vec<NodeId>>,
}

impl Stream {
    /// Finds the stream. Tables are looked up for positions too, and caches are outputs too: the
    /// embedding and the logits are the pair with the longest chain between them, and of equal
    /// ones that with the largest table. `None` if nothing looks like an embedding.
    pub(super) fn find(graph: &Graph, facts: &Facts, order: &[NodeId]) -> Option<Self> {
        let mut best: Option<(usize, usize, Cone, Vec<ValueId>)> = None;
        for (root, size) in roots(graph, facts) {
            let cone = Cone::new(graph, order, root);
            let chains = graph.outputs.iter().map(|output| cone.chain(*output));
            let Some(chain) = chains.rev().max_by_key(Vec::len) else { continue };
            if best.as_ref().is_none_or(|(len, s, ..)| (chain.len(), size) > (*len, *s)) {
                best = Some((chain.len(), size, cone, chain));
            }
        }
        let (_, _, cone, chain) = best.filter(|(len, ..)| *len > 1)?;
        let segments = segments(graph, order, &cone, &chain);
        Some(Self { cone, chain, segments })
    }
}

/// Where the stream may begin, with the size of the table there: rows looked up in a constant
/// table of floats, and float inputs `[batch, sequence, channels]`.
fn roots(graph: &Graph, facts: &Facts) -> Vec<(ValueId, usize)> {
    let is_float = |value| facts.get(value).dtype.is_some_and(|dtype| dtype.is_float());
    let lookups = graph.node_ids().filter_map(|id| {
        let node = graph.node(id);
        let table = graph.constant(node.input(0)?).filter(|_| node.is("Gather"))?;
        let is_table = table.shape().len() == 2 && table.dtype().is_float();
        Some((node.output(0).filter(|_| is_table)?, table.n_elements()))
    });
    let inputs = graph.inputs.iter().filter(|input| {
        is_float(**input) && facts.shape(**input).is_some_and(|shape| shape.len() == 3)
    });
    lookups.chain(inputs.map(|input| (*input, 0))).collect()
}

fn segments(
    graph: &Graph,
    order: &[NodeId],
    cone: &Cone,
    chain: &[ValueId],
) -> Vec<Vec<NodeId>> {
    let mut links: HashMap<ValueId, usize> =
        chain.iter().enumerate().map(|(i, value)| (*value, i)).collect();
    let needed = chain.last().map(|logits| upstream(graph, *logits)).unwrap_or_default();
    let mut segments = vec![Vec::new(); chain.len().saturating_sub(1)];
    for id in order {
        let Some(dominator) = cone.dominator_of_node(graph, *id) else { continue };
        let Some(link) = links.get(&dominator).copied() else { continue };
        for output in graph.node(*id).outputs.iter().flatten() {
            links.entry(*output).or_insert(link);
        }
        if needed.contains(id)
            && let Some(segment) = segments.get_mut(link)
        {
            segment.push(*id);
        }
    }
    segments
}

/// The nodes that `value` depends on.
fn upstream(graph: &Graph, value: ValueId) -> HashSet<NodeId> {
    let mut found = HashSet::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        if let Some((node, _)) = graph.producer(value)
            && found.insert(node)
        {
            open.extend(graph.inputs_and_captures(node));
        }
    }
    found
}
