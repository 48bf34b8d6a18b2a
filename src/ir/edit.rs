//! Changes that touch more than one vertex.

use crate::{Graph, GraphError, Node, NodeId, ValueId};

impl Graph {
    /// Lets everything that reads `old` read `new` instead, subgraphs included. Outputs of the
    /// graph keep their names: if `old` is one, `new` takes its name and place, or, where `new`
    /// has a name to keep itself (it is an input, an output or an initializer), an `Identity`
    /// node carries it over.
    pub fn replace_value(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        for (node, index) in self.users(old) {
            if index == usize::MAX {
                self.recapture(node, old, new);
            } else {
                self.set_input(node, index, Some(new));
            }
        }
        if self.is_output(old) {
            self.replace_output(old, new);
        }
    }

    fn recapture(&mut self, node: NodeId, old: ValueId, new: ValueId) {
        let mut changed = self.remove_node(node);
        for graph in changed.attributes.values_mut().flat_map(|a| a.graphs_mut()) {
            for capture in graph.captures.iter_mut().filter(|c| c.outer == old) {
                capture.outer = new;
            }
        }
        self.add_node(changed).expect("the node's outputs were just freed");
    }

    fn replace_output(&mut self, old: ValueId, new: ValueId) {
        let name = self.value(old).name.clone();
        let (ty, declared) = (self.value(old).ty.clone(), self.value(old).declared);
        let parked = self.free_name(&format!("{name}_before"));
        self.rename_value(old, &parked).expect("a free name");
        let keeps_its_name =
            self.is_input(new) || self.is_output(new) || self.value(new).constant.is_some();
        let output = if keeps_its_name {
            self.add_op(&name, Node::new("Identity", vec![Some(new)]))
        } else {
            new
        };
        self.rename_value(output, &name).expect("the name was just freed");
        if declared {
            let value = self.value_mut(output);
            (value.ty, value.declared) = (ty, true);
        }
        for slot in self.outputs.iter_mut().filter(|slot| **slot == old) {
            *slot = output;
        }
    }

    /// Removes the nodes whose outputs nobody reads and the values that nothing touches.
    /// Inputs and outputs stay. Returns the number of nodes removed.
    pub fn remove_dead(&mut self) -> usize {
        let mut n_removed = 0;
        let mut candidates: Vec<NodeId> = self.node_ids().collect();
        while let Some(id) = candidates.pop() {
            if !self.contains_node(id) || !self.is_dead(id) {
                continue;
            }
            let inputs = self.inputs_and_captures(id);
            self.remove_node(id);
            n_removed += 1;
            candidates.extend(inputs.into_iter().filter_map(|v| Some(self.producer(v)?.0)));
        }
        self.remove_orphans();
        n_removed
    }

    fn is_dead(&self, id: NodeId) -> bool {
        let unread = |v: &ValueId| self.users(*v).is_empty() && !self.is_output(*v);
        self.node(id).outputs.iter().flatten().all(unread)
    }

    /// Every value that a node reads, those that its subgraphs capture included.
    pub fn inputs_and_captures(&self, id: NodeId) -> Vec<ValueId> {
        let node = self.node(id);
        let graphs = node.attributes.values().flat_map(|a| a.graphs());
        let captured = graphs.flat_map(|g| g.captures.iter().map(|c| c.outer));
        node.inputs.iter().flatten().copied().chain(captured).collect()
    }

    fn remove_orphans(&mut self) {
        let captured: Vec<ValueId> = self.captures.iter().map(|c| c.inner).collect();
        let orphans: Vec<ValueId> = self
            .value_ids()
            .filter(|v| self.producer(*v).is_none() && self.users(*v).is_empty())
            .filter(|v| !self.is_input(*v) && !self.is_output(*v) && !captured.contains(v))
            .collect();
        for value in orphans {
            self.remove_value(value);
        }
    }

    /// Moves an output to another value of the same meaning without changing its name: after
    /// this, `value` is called as the output at `index` was.
    ///
    /// # Errors
    /// If `value` is an input, an output or an initializer.
    pub fn set_output(&mut self, index: usize, value: ValueId) -> Result<(), GraphError> {
        let old = self.outputs[index];
        let name = self.value(old).name.clone();
        if self.is_input(value) || self.is_output(value) || self.value(value).constant.is_some() {
            return Err(GraphError::DuplicateName(name));
        }
        let parked = self.free_name(&format!("{name}_before"));
        self.rename_value(old, &parked)?;
        self.rename_value(value, &name)?;
        self.outputs[index] = value;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Graph, Node, ValueType};

    #[test]
    fn a_replaced_output_keeps_its_name() {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let y = graph.add_op("y", Node::new("Neg", vec![Some(x)]));
        graph.outputs.push(y);
        let z = graph.add_op("z", Node::new("Abs", vec![Some(x)]));
        graph.replace_value(y, z);
        assert_eq!(graph.remove_dead(), 1);
        assert_eq!(graph.value(graph.outputs[0]).name, "y");
        assert_eq!(graph.producer_node(graph.outputs[0]).unwrap().op_type, "Abs");
    }

    #[test]
    fn an_output_replaced_by_an_input_goes_through_identity() {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let y = graph.add_op("y", Node::new("Cast", vec![Some(x)]));
        graph.outputs.push(y);
        graph.replace_value(y, x);
        graph.remove_dead();
        assert_eq!(graph.producer_node(graph.outputs[0]).unwrap().op_type, "Identity");
        assert_eq!(graph.value(graph.outputs[0]).name, "y");
        assert_eq!(graph.value(x).name, "x");
    }

    #[test]
    fn dead_chains_go_as_a_whole() {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let a = graph.add_op("a", Node::new("Neg", vec![Some(x)]));
        let b = graph.add_op("b", Node::new("Neg", vec![Some(a)]));
        graph.add_op("c", Node::new("Neg", vec![Some(b)]));
        assert_eq!(graph.remove_dead(), 3);
        assert_eq!(graph.value_ids().count(), 1);
    }
}
