//! Building a graph from names, as files and texts give them.

use std::collections::HashSet;

use crate::{
    Attribute, Capture, Graph, GraphError, Node, Tensor, TensorType, Value, ValueId, ValueType,
};

/// Why the parts of a graph don't fit together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BuildError {
    #[error("{reader} reads the value \"{value}\", which nothing defines")]
    Undefined { value: String, reader: String },
    #[error("the value \"{value}\" is defined twice, the second time by {definer}")]
    Twice { value: String, definer: String },
    #[error("{0}")]
    Graph(#[from] GraphError),
}

/// A graph under construction. First define the inputs, initializers and the outputs of all
/// nodes, then add the nodes and outputs; the order of the nodes does not matter.
///
/// What is read but not defined becomes a value without producer: in the outermost graph
/// [`GraphBuilder::finish`] refuses it, in a subgraph it is captured from the enclosing graph when
/// the node that holds the subgraph is added there.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    /// The graph so far.
    pub graph: Graph,
}

/// A node whose inputs and outputs are names; `""` stands for an absent one.
#[derive(Debug, Default)]
pub struct NamedNode {
    /// Everything but inputs and outputs.
    pub node: Node,
    /// Names of the inputs.
    pub inputs: Vec<String>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
}

impl GraphBuilder {
    /// Adds an input.
    ///
    /// # Errors
    /// If there is an input of that name.
    pub fn add_input(&mut self, value: Value) -> Result<ValueId, BuildError> {
        let id = self.define(value, || "an input".into())?;
        self.graph.inputs.push(id);
        Ok(id)
    }

    /// Adds an initializer, or gives an input its default.
    ///
    /// # Errors
    /// If the name belongs to another initializer.
    pub fn add_initializer(&mut self, value: Value, tensor: Tensor) -> Result<ValueId, BuildError> {
        let existing = self.graph.find_value(&value.name);
        let id = match existing {
            Some(id) if self.graph.value(id).constant.is_none() => id,
            _ => self.define(value, || "an initializer".into())?,
        };
        let value = self.graph.value_mut(id);
        if value.ty == ValueType::Unknown {
            value.ty = ValueType::Tensor(TensorType::of(&tensor));
        }
        value.constant = Some(tensor);
        Ok(id)
    }

    /// Defines the value that the node `definer` writes.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn add_result(&mut self, value: Value, definer: &Node) -> Result<ValueId, BuildError> {
        self.define(value, || definer.describe())
    }

    fn define(
        &mut self,
        value: Value,
        definer: impl Fn() -> String,
    ) -> Result<ValueId, BuildError> {
        let name = value.name.clone();
        let twice = |_| BuildError::Twice { value: name, definer: definer() };
        self.graph.add_value(value).map_err(twice)
    }

    /// Connects a node to the values that it names and its subgraphs to what they capture.
    ///
    /// # Errors
    /// If an output has a producer already.
    pub fn add_node(&mut self, named: NamedNode) -> Result<(), BuildError> {
        let NamedNode { mut node, inputs, outputs } = named;
        node.inputs = inputs.iter().map(|name| self.resolve(name)).collect();
        node.outputs = outputs.iter().map(|name| self.resolve(name)).collect();
        for graph in node.attributes.values_mut().flat_map(Attribute::graphs_mut) {
            for inner in undefined(graph) {
                let outer = self.find_or_leave_open(&graph.value(inner).name);
                graph.captures.push(Capture { inner, outer });
            }
        }
        self.graph.add_node(node)?;
        Ok(())
    }

    /// Adds an output.
    pub fn add_output(&mut self, name: &str) -> ValueId {
        let id = self.find_or_leave_open(name);
        self.graph.outputs.push(id);
        id
    }

    fn resolve(&mut self, name: &str) -> Option<ValueId> {
        (!name.is_empty()).then(|| self.find_or_leave_open(name))
    }

    /// The value called `name`, or a new one that waits for an enclosing graph to define it.
    fn find_or_leave_open(&mut self, name: &str) -> ValueId {
        match self.graph.find_value(name) {
            Some(id) => id,
            None => self.graph.new_value(name, ValueType::Unknown),
        }
    }

    /// The outermost graph.
    ///
    /// # Errors
    /// If a value is read that nothing defines.
    pub fn finish(self) -> Result<Graph, BuildError> {
        let Some(open) = undefined(&self.graph).first().copied() else {
            return Ok(self.graph);
        };
        let value = self.graph.value(open).name.clone();
        let reader = match self.graph.users(open).first() {
            Some((node, _)) => self.graph.node(*node).describe(),
            None => "the graph's list of outputs".to_owned(),
        };
        Err(BuildError::Undefined { value, reader })
    }

    /// A subgraph, to be put into an attribute of a node of the enclosing graph.
    pub fn finish_subgraph(self) -> Graph {
        self.graph
    }
}

/// The values that have neither producer nor data and are no inputs.
fn undefined(graph: &Graph) -> Vec<ValueId> {
    let inputs: HashSet<ValueId> = graph.inputs.iter().copied().collect();
    let is_open = |id: &ValueId| {
        graph.value(*id).constant.is_none() && !inputs.contains(id) && graph.producer(*id).is_none()
    };
    graph.value_ids().filter(is_open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Value {
        Value { name: name.into(), ..Value::default() }
    }

    fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NamedNode {
        NamedNode {
            node: Node::new(op, Vec::new()),
            inputs: inputs.iter().map(|s| (*s).to_owned()).collect(),
            outputs: outputs.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    #[test]
    fn a_read_of_nothing_is_reported_with_its_reader() {
        let mut builder = GraphBuilder::default();
        builder.add_result(value("y"), &Node::default()).unwrap();
        builder.add_node(node("Neg", &["ghost"], &["y"])).unwrap();
        let expected = BuildError::Undefined { value: "ghost".into(), reader: "Neg".into() };
        assert_eq!(builder.finish().unwrap_err(), expected);
    }

    #[test]
    fn captures_chain_through_levels() {
        let mut innermost = GraphBuilder::default();
        innermost.add_result(value("c"), &Node::default()).unwrap();
        innermost.add_node(node("Neg", &["x"], &["c"])).unwrap();
        let mut inner = GraphBuilder::default();
        inner.add_result(value("b"), &Node::default()).unwrap();
        let mut branch = node("If", &["x"], &["b"]);
        let graph = Attribute::Graph(Box::new(innermost.finish_subgraph()));
        branch.node.attributes.insert("then_branch".into(), graph);
        inner.add_node(branch).unwrap();
        let mut outer = GraphBuilder::default();
        let x = outer.add_input(value("x")).unwrap();
        outer.add_result(value("a"), &Node::default()).unwrap();
        let mut branch = node("If", &["x"], &["a"]);
        let graph = Attribute::Graph(Box::new(inner.finish_subgraph()));
        branch.node.attributes.insert("then_branch".into(), graph);
        outer.add_node(branch).unwrap();
        let graph = outer.finish().unwrap();
        let held = graph.node(graph.node_ids().next().unwrap()).attributes["then_branch"].graphs();
        assert_eq!(held[0].captures.len(), 1);
        assert_eq!(held[0].captures[0].outer, x);
        let level = held[0].node(held[0].node_ids().next().unwrap());
        let innermost = level.attributes["then_branch"].graphs();
        assert_eq!(innermost[0].captures[0].outer, held[0].captures[0].inner);
    }
}
