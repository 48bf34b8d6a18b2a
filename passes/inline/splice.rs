//! Copying the nodes of one graph into another.

use std::collections::HashMap;

use planish_ir::{Graph, Node, ValueId, ValueType};

/// Copies a graph's nodes into another graph.
pub(super) struct Splice<'a> {
    /// The graph that grows.
    pub graph: &'a mut Graph,
    /// The graph that is copied.
    pub body: &'a Graph,
    /// What stands for the values of `body`: those that are known from the start, `None` for
    /// absent ones.
    pub map: HashMap<ValueId, Option<ValueId>>,
    /// Whether declared types hold for the copy; those in a function may not.
    pub keeps_types: bool,
}

impl Splice<'_> {
    /// Copies all nodes, each changed by `adapt`; returns what stands for the outputs.
    ///
    /// # Errors
    /// If the body has a cycle, or a graph within reads a value that is absent.
    pub fn copy(mut self, adapt: &dyn Fn(&mut Node)) -> Result<Vec<Option<ValueId>>, String> {
        let order = self.body.topological_order().map_err(|error| error.to_string())?;
        for id in order {
            let mut node = self.body.node(id).clone();
            for value in node.inputs.iter_mut() {
                *value = value.and_then(|v| self.value(v));
            }
            for graph in node.attributes.values_mut().flat_map(|a| a.graphs_mut()) {
                for capture in &mut graph.captures {
                    let outer = self.value(capture.outer);
                    capture.outer = outer.ok_or_else(|| self.absent(capture.outer))?;
                }
            }
            for value in node.outputs.iter_mut() {
                *value = value.and_then(|v| self.value(v));
            }
            adapt(&mut node);
            self.graph.add_node(node).map_err(|error| error.to_string())?;
        }
        let outputs = self.body.outputs.clone();
        Ok(outputs.into_iter().map(|output| self.value(output)).collect())
    }

    fn absent(&self, value: ValueId) -> String {
        format!("a graph inside of it reads \"{}\", which is absent", self.body.value(value).name)
    }

    /// What stands for a value of the body.
    fn value(&mut self, inner: ValueId) -> Option<ValueId> {
        if let Some(known) = self.map.get(&inner) {
            return *known;
        }
        let value = self.body.value(inner);
        let copy = match self.body.constant(inner) {
            Some(tensor) => self.graph.add_constant(&value.name, tensor.clone()),
            None => {
                let ty = if self.keeps_types { value.ty.clone() } else { ValueType::Unknown };
                self.graph.new_value(&value.name, ty)
            }
        };
        self.map.insert(inner, Some(copy));
        Some(copy)
    }
}

/// Takes the node `id` out of `graph` and puts `body` there: `map` says what its inputs and
/// captures stand for. The node's outputs stay and are written by the copy.
///
/// # Errors
/// As [`Splice::copy`]; and if an output that is read has nothing to stand for it.
pub(super) fn replace_by_body(
    graph: &mut Graph,
    id: planish_ir::NodeId,
    body: &Graph,
    mut map: HashMap<ValueId, Option<ValueId>>,
    keeps_types: bool,
    adapt: &dyn Fn(&mut Node),
) -> Result<(), String> {
    let (n_outputs, written) = (body.outputs.len(), &graph.node(id).outputs);
    if written.iter().skip(n_outputs).any(Option::is_some) {
        return Err(format!("it has {} outputs, its body {n_outputs}", written.len()));
    }
    let node = graph.remove_node(id);
    // Values that the body's nodes write are written under the names of the node's outputs.
    for (inner, outer) in body.outputs.iter().zip(&node.outputs) {
        let is_written = body.producer(*inner).is_some() && !map.contains_key(inner);
        if let (Some(outer), true) = (outer, is_written) {
            map.insert(*inner, Some(*outer));
        }
    }
    let copied = Splice { graph, body, map, keeps_types }.copy(adapt)?;
    for (outer, inner) in node.outputs.iter().zip(copied) {
        let Some(outer) = *outer else { continue };
        match inner {
            Some(inner) if inner == outer => {}
            Some(inner) => {
                let carry = Node::new("Identity", vec![Some(inner)])
                    .with_name(node.name.clone())
                    .with_outputs(vec![Some(outer)]);
                graph.add_node(carry).map_err(|error| error.to_string())?;
            }
            None if graph.users(outer).is_empty() && !graph.is_output(outer) => {}
            None => {
                let name = &graph.value(outer).name;
                return Err(format!("its output \"{name}\" is an input that is absent"));
            }
        }
    }
    Ok(())
}
