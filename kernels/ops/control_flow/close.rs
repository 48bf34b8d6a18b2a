//! Nodes whose graphs read nothing but their inputs.

use std::borrow::Cow;

use planish_ir::{Attribute, Graph, Model, Node, NodeId, Value, ValueId};

/// Attribute of a closed node: how many of its last inputs its graphs captured before.
pub(super) const CAPTURED: &str = "planish.captured";

/// Whether the node holds graphs.
pub fn holds_graphs(node: &Node) -> bool {
    node.attributes.values().any(|attribute| !attribute.graphs().is_empty())
}

/// The node with what its graphs capture as further inputs, of the node and of each of its graphs,
/// in the same order; so too for the nodes within. The inputs are values of the graph around it.
pub fn close(node: &Node) -> Node {
    let mut closed = node.clone();
    let mut outer: Vec<ValueId> = Vec::new();
    for graph in graphs_of(&mut closed) {
        close_nodes(graph);
        for capture in &graph.captures {
            if !outer.contains(&capture.outer) {
                outer.push(capture.outer);
            }
        }
    }
    for graph in graphs_of(&mut closed) {
        let captures = std::mem::take(&mut graph.captures);
        for value in &outer {
            let captured = captures.iter().filter(|capture| capture.outer == *value);
            let inner: Vec<ValueId> = captured.map(|capture| capture.inner).collect();
            let first = inner.first().copied().unwrap_or_else(|| unread_value(graph));
            graph.inputs.push(first);
            inner.iter().skip(1).for_each(|other| graph.replace_value(*other, first));
        }
    }
    let n_captured = outer.len() as i64;
    closed.inputs.extend(outer.into_iter().map(Some));
    closed.attributes.insert(CAPTURED.into(), Attribute::Int(n_captured));
    closed
}

/// The model with all nodes of its graph closed; itself where none holds graphs. Such a model is
/// to be run, not to be written.
pub fn close_all(model: &Model) -> Cow<'_, Model> {
    let graph = &model.graph;
    if !graph.node_ids().any(|id| holds_graphs(graph.node(id))) {
        return Cow::Borrowed(model);
    }
    let mut closed = model.clone();
    close_nodes(&mut closed.graph);
    Cow::Owned(closed)
}

fn close_nodes(graph: &mut Graph) {
    let holders: Vec<NodeId> =
        graph.node_ids().filter(|id| holds_graphs(graph.node(*id))).collect();
    for id in holders {
        let closed = close(graph.node(id));
        graph.replace_node(id, closed).expect("its outputs were just freed");
    }
}

fn graphs_of(node: &mut Node) -> impl Iterator<Item = &mut Graph> {
    node.attributes.values_mut().flat_map(Attribute::graphs_mut)
}

/// A value for an input that the graph has no use for.
fn unread_value(graph: &mut Graph) -> ValueId {
    graph.new_value("captured", Value::default().ty)
}

/// Whether [`close`] made the node.
pub fn is_closed(node: &Node) -> bool {
    node.attributes.contains_key(CAPTURED)
}
