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

/// How well a start fits: products that depend on it, length of the chain, size of the table.
type Rank = (usize, usize, usize);

impl Stream {
    /// Finds the stream. Tables are looked up for positions too, and caches are outputs too: the
    /// embedding is the start that most linear layers depend on, the logits the output that depends
    /// on most of them and has the longest chain from there; of equal starts that with the longest chain, then with the
    /// largest table counts. `None` if nothing looks like an embedding.
    pub(super) fn find(graph: &Graph, facts: &Facts, order: &[NodeId]) -> Option<Self> {
        let depths: Vec<(ValueId, usize)> = graph
            .outputs
            .iter()
            .map(|output| (*output, n_products_before(graph, *output)))
            .collect();
        let mut best: Option<(Rank, Cone, Vec<ValueId>)> = None;
        for (root, size) in roots(graph, facts) {
            let cone = Cone::new(graph, order, root);
            let chains = depths.iter().map(|(output, depth)| (*depth, cone.chain(*output)));
            let chain = chains.rev().max_by_key(|(depth, chain)| (*depth, chain.len()));
            let Some((_, chain)) = chain else { continue };
            let rank = (n_products(graph, &cone), chain.len(), size);
            if best.as_ref().is_none_or(|(best, ..)| rank > *best) {
                best = Some((rank, cone, chain));
            }
        }
        let (_, cone, chain) = best.filter(|(_, _, chain)| chain.len() > 1)?;
        let segments = segments(graph, order, &cone, &chain);
        Some(Self { cone, chain, segments })
    }
}

/// The products with a constant that `value` depends on.
fn n_products_before(graph: &Graph, value: ValueId) -> usize {
    upstream(graph, value).into_iter().filter(|id| is_product(graph, *id)).count()
}

fn is_product(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let weight = node.input(1).filter(|_| node.is("MatMul"));
    weight.is_some_and(|weight| graph.constant(weight).is_some())
}

/// The products with a constant that depend on the root of the cone.
fn n_products(graph: &Graph, cone: &Cone) -> usize {
    let depends = |id: &NodeId| is_product(graph, *id) && cone.is_read_by(graph.node(*id));
    graph.node_ids().filter(depends).count()
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

fn segments(graph: &Graph, order: &[NodeId], cone: &Cone, chain: &[ValueId]) -> Vec<Vec<NodeId>> {
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
