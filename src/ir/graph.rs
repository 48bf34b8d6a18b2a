//! The graph: nodes and values as vertices, "reads" and "writes" as edges.

use std::collections::HashMap;

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use crate::{Node, NodeId, Tensor, TensorType, Value, ValueId, ValueType};

/// A vertex of the underlying petgraph.
#[derive(Clone, Debug)]
pub(crate) enum Vertex {
    Node(Box<Node>),
    Value(Box<Value>),
}

/// Role of an edge: the position among the inputs or outputs, or the capture by a subgraph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    Input(u32),
    Output(u32),
    Captured,
}

/// A value of an enclosing graph that a subgraph reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The value that stands for it in the subgraph.
    pub inner: ValueId,
    /// The value in the directly enclosing graph.
    pub outer: ValueId,
}

/// Why a graph can't be changed or ordered as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GraphError {
    #[error("two values are called \"{0}\"")]
    DuplicateName(String),
    #[error("the value \"{0}\" is written by two nodes")]
    TwoProducers(String),
    #[error("the graph has a cycle through node {0}")]
    Cycle(String),
}

/// A graph of nodes and values. Inputs, outputs and node order are those of the ONNX file.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Name of the graph.
    pub name: String,
    /// ONNX `doc_string`.
    pub doc: String,
    /// ONNX `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// Inputs, in order. An input that also has a constant is an initializer with a default.
    pub inputs: Vec<ValueId>,
    /// Outputs, in order.
    pub outputs: Vec<ValueId>,
    /// For a subgraph: what it reads from the enclosing graph.
    pub captures: Vec<Capture>,
    pub(crate) dag: StableDiGraph<Vertex, Slot>,
    pub(crate) names: HashMap<String, ValueId>,
    fresh: u64,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    // ---- values -------------------------------------------------------------------------

    /// Adds a value under a name that must be free.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn add_value(&mut self, value: Value) -> Result<ValueId, GraphError> {
        if self.names.contains_key(&value.name) {
            return Err(GraphError::DuplicateName(value.name));
        }
        let name = value.name.clone();
        let id = ValueId(self.dag.add_node(Vertex::Value(Box::new(value))));
        self.names.insert(name, id);
        Ok(id)
    }

    /// Adds a value named `hint`, or `hint_1`, `hint_2`… if that is taken.
    pub fn new_value(&mut self, hint: &str, ty: ValueType) -> ValueId {
        let name = self.free_name(hint);
        let id = ValueId(self.dag.add_node(Vertex::Value(Box::new(Value {
            name: name.clone(),
            ty,
            ..Value::default()
        }))));
        self.names.insert(name, id);
        id
    }

    /// Adds an initializer named after `hint`.
    pub fn add_constant(&mut self, hint: &str, tensor: Tensor) -> ValueId {
        let id = self.new_value(hint, ValueType::Tensor(TensorType::of(&tensor)));
        self.value_mut(id).constant = Some(tensor);
        id
    }

    /// A name that no value has, as close to `hint` as can be.
    pub fn free_name(&mut self, hint: &str) -> String {
        if !hint.is_empty() && !self.names.contains_key(hint) {
            return hint.to_owned();
        }
        loop {
            self.fresh += 1;
            let name = format!("{hint}_{}", self.fresh);
            if !self.names.contains_key(&name) {
                return name;
            }
        }
    }

    /// The value called `name`.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// A value.
    ///
    /// # Panics
    /// If the value was removed.
    pub fn value(&self, id: ValueId) -> &Value {
        match &self.dag[id.0] {
            Vertex::Value(value) => value,
            Vertex::Node(_) => panic!("{id:?} is not a value"),
        }
    }

    /// A value, to be changed; its name must stay (see [`Graph::rename_value`]).
    ///
    /// # Panics
    /// If the value was removed.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        match &mut self.dag[id.0] {
            Vertex::Value(value) => value,
            Vertex::Node(_) => panic!("{id:?} is not a value"),
        }
    }

    /// Gives a value another name.
    ///
    /// # Errors
    /// If another value has that name.
    pub fn rename_value(&mut self, id: ValueId, name: &str) -> Result<(), GraphError> {
        match self.names.get(name) {
            Some(owner) if *owner == id => return Ok(()),
            Some(_) => return Err(GraphError::DuplicateName(name.to_owned())),
            None => {}
        }
        let old = std::mem::replace(&mut self.value_mut(id).name, name.to_owned());
        self.names.remove(&old);
        self.names.insert(name.to_owned(), id);
        Ok(())
    }

    /// All values, in order of their ids.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + '_ {
        let values = |i: &NodeIndex| matches!(self.dag[*i], Vertex::Value(_));
        self.dag.node_indices().filter(values).map(ValueId)
    }

    /// The node that writes a value and the position among its outputs.
    pub fn producer(&self, id: ValueId) -> Option<(NodeId, usize)> {
        self.dag.edges_directed(id.0, Incoming).find_map(|edge| match edge.weight() {
            Slot::Output(index) => Some((NodeId(edge.source()), *index as usize)),
            _ => None,
        })
    }

    /// The node that writes a value as its first output.
    pub fn producer_node(&self, id: ValueId) -> Option<&Node> {
        self.producer(id).map(|(node, _)| self.node(node))
    }

    /// The nodes that read a value and the positions among their inputs, sorted. A node whose
    /// subgraph captures the value is listed with position `usize::MAX`.
    pub fn users(&self, id: ValueId) -> Vec<(NodeId, usize)> {
        let mut users: Vec<_> = self
            .dag
            .edges_directed(id.0, Outgoing)
            .map(|edge| match edge.weight() {
                Slot::Input(index) => (NodeId(edge.target()), *index as usize),
                _ => (NodeId(edge.target()), usize::MAX),
            })
            .collect();
        users.sort_unstable();
        users
    }

    /// Whether the value is among the graph's outputs.
    pub fn is_output(&self, id: ValueId) -> bool {
        self.outputs.contains(&id)
    }

    /// Whether the value is among the graph's inputs.
    pub fn is_input(&self, id: ValueId) -> bool {
        self.inputs.contains(&id)
    }

    /// The data of a value that can never change: an initializer that no caller can override.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        let constant = self.value(id).constant.as_ref()?;
        (!self.is_input(id)).then_some(constant)
    }

    // ---- nodes --------------------------------------------------------------------------

    /// Adds a node and connects it to the values in its input and output lists.
    ///
    /// # Errors
    /// If an output has a producer already.
    pub fn add_node(&mut self, node: Node) -> Result<NodeId, GraphError> {
        for output in node.outputs.iter().flatten() {
            if self.producer(*output).is_some() {
                return Err(GraphError::TwoProducers(self.value(*output).name.clone()));
            }
        }
        let id = NodeId(self.dag.add_node(Vertex::Node(Box::new(node))));
        self.connect(id);
        Ok(id)
    }

    /// Adds a node with one new output of unknown type, named after `hint`; returns that output.
    pub fn add_op(&mut self, hint: &str, node: Node) -> ValueId {
        self.add_op_n(hint, node, 1)[0]
    }

    /// Adds a node with `n` new outputs of unknown type, named after `hint`.
    pub fn add_op_n(&mut self, hint: &str, mut node: Node, n: usize) -> Vec<ValueId> {
        let outputs: Vec<_> = (0..n).map(|_| self.new_value(hint, ValueType::Unknown)).collect();
        node.outputs = outputs.iter().copied().map(Some).collect();
        if node.name.is_empty() {
            node.name = self.value(outputs[0]).name.clone();
        }
        let id = NodeId(self.dag.add_node(Vertex::Node(Box::new(node))));
        self.connect(id);
        outputs
    }

    fn connect(&mut self, id: NodeId) {
        let node = self.node(id);
        let mut edges: Vec<(NodeIndex, NodeIndex, Slot)> = Vec::new();
        for (i, input) in node.inputs.iter().enumerate() {
            edges.extend(input.map(|v| (v.0, id.0, Slot::Input(i as u32))));
        }
        for (i, output) in node.outputs.iter().enumerate() {
            edges.extend(output.map(|v| (id.0, v.0, Slot::Output(i as u32))));
        }
        let graphs = node.attributes.values().flat_map(|a| a.graphs());
        for capture in graphs.flat_map(|g| &g.captures) {
            let edge = (capture.outer.0, id.0, Slot::Captured);
            if !edges.contains(&edge) {
                edges.push(edge);
            }
        }
        for (from, to, slot) in edges {
            self.dag.add_edge(from, to, slot);
        }
    }

    /// A node.
    ///
    /// # Panics
    /// If the node was removed.
    pub fn node(&self, id: NodeId) -> &Node {
        match &self.dag[id.0] {
            Vertex::Node(node) => node,
            Vertex::Value(_) => panic!("{id:?} is not a node"),
        }
    }

    /// A node, to be changed in anything but its inputs, outputs and subgraphs' captures
    /// (see [`Graph::set_input`], [`Graph::replace_node`]).
    ///
    /// # Panics
    /// If the node was removed.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        match &mut self.dag[id.0] {
            Vertex::Node(node) => node,
            Vertex::Value(_) => panic!("{id:?} is not a node"),
        }
    }

    /// Whether the node is still in the graph.
    pub fn contains_node(&self, id: NodeId) -> bool {
        matches!(self.dag.node_weight(id.0), Some(Vertex::Node(_)))
    }

    /// Whether the value is still in the graph.
    pub fn contains_value(&self, id: ValueId) -> bool {
        matches!(self.dag.node_weight(id.0), Some(Vertex::Value(_)))
    }

    /// All nodes, in order of their ids.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        let nodes = |i: &NodeIndex| matches!(self.dag[*i], Vertex::Node(_));
        self.dag.node_indices().filter(nodes).map(NodeId)
    }

    /// Number of nodes.
    pub fn n_nodes(&self) -> usize {
        self.node_ids().count()
    }

    /// Makes `node` read `value` at input `index`, extending the list with absent inputs.
    pub fn set_input(&mut self, node: NodeId, index: usize, value: Option<ValueId>) {
        let slot = Slot::Input(index as u32);
        let old = self
            .dag
            .edges_directed(node.0, Incoming)
            .find(|edge| *edge.weight() == slot)
            .map(|edge| edge.id());
        if let Some(edge) = old {
            self.dag.remove_edge(edge);
        }
        let inputs = &mut self.node_mut(node).inputs;
        if inputs.len() <= index {
            inputs.resize(index + 1, None);
        }
        inputs[index] = value;
        if let Some(value) = value {
            self.dag.add_edge(value.0, node.0, slot);
        }
    }

    /// Takes a node out; its values stay.
    pub fn remove_node(&mut self, id: NodeId) -> Node {
        match self.dag.remove_node(id.0) {
            Some(Vertex::Node(node)) => *node,
            _ => panic!("{id:?} is not a node"),
        }
    }

    /// Puts `node` in the place of the node `id`, with the edges that its lists ask for.
    ///
    /// # Errors
    /// As [`Graph::add_node`].
    pub fn replace_node(&mut self, id: NodeId, node: Node) -> Result<NodeId, GraphError> {
        self.remove_node(id);
        self.add_node(node)
    }

    /// Takes a value out that no edge touches and that is neither input nor output.
    pub fn remove_value(&mut self, id: ValueId) {
        debug_assert!(self.dag.neighbors_undirected(id.0).next().is_none());
        if let Some(Vertex::Value(value)) = self.dag.remove_node(id.0) {
            self.names.remove(&value.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> (Graph, ValueId, ValueId) {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let y = graph.add_op("y", Node::new("Neg", vec![Some(x)]));
        graph.outputs.push(y);
        (graph, x, y)
    }

    #[test]
    fn producers_and_users_follow_the_lists() {
        let (graph, x, y) = chain();
        let (node, index) = graph.producer(y).unwrap();
        assert_eq!((graph.node(node).op_type.as_str(), index), ("Neg", 0));
        assert_eq!(graph.users(x), [(node, 0)]);
        assert!(graph.producer(x).is_none());
    }

    #[test]
    fn a_value_has_one_producer() {
        let (mut graph, x, y) = chain();
        let second = Node::new("Abs", vec![Some(x)]).with_outputs(vec![Some(y)]);
        assert_eq!(graph.add_node(second), Err(GraphError::TwoProducers("y".into())));
    }

    #[test]
    fn set_input_moves_the_edge() {
        let (mut graph, x, y) = chain();
        let z = graph.new_value("z", ValueType::Unknown);
        let (node, _) = graph.producer(y).unwrap();
        graph.set_input(node, 0, Some(z));
        assert!(graph.users(x).is_empty());
        assert_eq!(graph.users(z), [(node, 0)]);
    }

    #[test]
    fn fresh_names_never_collide() {
        let (mut graph, ..) = chain();
        let a = graph.new_value("x", ValueType::Unknown);
        let b = graph.new_value("x", ValueType::Unknown);
        assert_ne!(graph.value(a).name, graph.value(b).name);
    }
}
