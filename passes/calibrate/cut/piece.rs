//! Which nodes a block needs, and what it reads from elsewhere.

use std::collections::{HashMap, HashSet};

use planish_ir::{DataType, Graph, Node, NodeId, ValueId};
use planish_kernels::infer::Facts;

use crate::sites::Block;

/// The nodes that a block's output needs from the block's input on.
pub(super) struct Piece {
    /// The nodes, attentions without caches.
    pub(super) nodes: HashMap<NodeId, Node>,
    /// Values that are neither computed by them nor constants, in order of their ids.
    pub(super) outside: Vec<ValueId>,
}

impl Piece {
    /// Walks back from the block's output; the error says what needs a cache.
    pub(super) fn find(graph: &Graph, facts: &Facts, block: &Block) -> Result<Self, String> {
        let members: HashSet<NodeId> = block.nodes.iter().copied().collect();
        let fixed = of_constants(graph);
        let mut nodes = HashMap::new();
        let (mut outside, mut seen) = (Vec::new(), HashSet::from([block.input]));
        let mut open = vec![block.output];
        while let Some(value) = open.pop() {
            if !seen.insert(value) || graph.constant(value).is_some() {
                continue;
            }
            let producer = graph.producer(value);
            let Some((id, index)) =
                producer.filter(|(id, _)| members.contains(id) || fixed.contains(id))
            else {
                outside.push(value);
                continue;
            };
            let node = without_cache(graph.node(id), facts)?;
            if node.output(index).is_none() {
                return Err(format!("\"{}\" is read", graph.value(value).name));
            }
            open.extend(node.inputs.iter().flatten());
            open.extend(captured(&node));
            nodes.insert(id, node);
        }
        outside.sort_unstable();
        Ok(Self { nodes, outside })
    }
}

/// The nodes that depend on constants only.
fn of_constants(graph: &Graph) -> HashSet<NodeId> {
    let mut found = HashSet::new();
    for id in graph.topological_order().unwrap_or_default() {
        let reads = graph.inputs_and_captures(id);
        let is_fixed = |value: &ValueId| {
            graph.constant(*value).is_some()
                || graph.producer(*value).is_some_and(|(node, _)| found.contains(&node))
        };
        // Without inputs a node is either a constant or a source of random numbers.
        let starts = !reads.is_empty() || graph.node(id).is("Constant");
        if starts && reads.iter().all(is_fixed) {
            found.insert(id);
        }
    }
    found
}

fn captured(node: &Node) -> impl Iterator<Item = ValueId> + '_ {
    let graphs = node.attributes.values().flat_map(|attribute| attribute.graphs());
    graphs.flat_map(|graph| graph.captures.iter().map(|capture| capture.outer))
}

/// The node; an `Attention` on whole sequences from their first token, without padding.
fn without_cache(node: &Node, facts: &Facts) -> Result<Node, String> {
    let mut node = node.clone();
    if !node.is("Attention") {
        return Ok(node);
    }
    if node.input(6).is_some() {
        return Err(format!("{} is told how much of it is filled", node.describe()));
    }
    let is_bool = |value| facts.get(value).dtype == Some(DataType::Bool);
    let hides_padding = node.int("is_causal", 0) != 0 && node.input(3).is_some_and(is_bool);
    node.inputs.truncate(if hides_padding { 3 } else { 4 });
    while node.inputs.last() == Some(&None) {
        node.inputs.pop();
    }
    node.outputs.truncate(1);
    Ok(node)
}
