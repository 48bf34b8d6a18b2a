//! Topological order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::{Graph, GraphError, NodeId};

impl Graph {
    /// The nodes, each after those that write what it reads; among the nodes that are ready the
    /// one with the smallest id comes first, so a sorted file keeps its order.
    ///
    /// # Errors
    /// If there is a cycle; the error names a node on it.
    pub fn topological_order(&self) -> Result<Vec<NodeId>, GraphError> {
        let mut n_missing: HashMap<NodeId, usize> = HashMap::new();
        let mut ready = BinaryHeap::new();
        for node in self.node_ids() {
            let producers = self.producers_of(node).len();
            n_missing.insert(node, producers);
            if producers == 0 {
                ready.push(Reverse(node));
            }
        }
        let mut order = Vec::with_capacity(n_missing.len());
        while let Some(Reverse(node)) = ready.pop() {
            order.push(node);
            for consumer in self.consumers_of(node) {
                let missing = n_missing.get_mut(&consumer).expect("every node was counted");
                *missing -= 1;
                if *missing == 0 {
                    ready.push(Reverse(consumer));
                }
            }
        }
        if order.len() == n_missing.len() {
            return Ok(order);
        }
        let ordered: HashSet<NodeId> = order.into_iter().collect();
        let stuck = self.node_ids().find(|n| !ordered.contains(n)).expect("a node is left over");
        Err(GraphError::Cycle(self.node(stuck).describe()))
    }

    /// The nodes that write what `node` reads.
    fn producers_of(&self, node: NodeId) -> HashSet<NodeId> {
        let inputs = self.inputs_and_captures(node);
        inputs.into_iter().filter_map(|v| Some(self.producer(v)?.0)).collect()
    }

    /// The nodes that read what `node` writes, each once.
    fn consumers_of(&self, node: NodeId) -> HashSet<NodeId> {
        let outputs = self.node(node).outputs.iter().flatten();
        outputs.flat_map(|v| self.users(*v)).map(|(user, _)| user).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Graph, GraphError, Node, ValueType};

    #[test]
    fn a_cycle_is_reported_with_a_node() {
        let mut graph = Graph::new("g");
        let a = graph.new_value("a", ValueType::Unknown);
        let b = graph.add_op("b", Node::new("Neg", vec![Some(a)]));
        let back = Node::new("Abs", vec![Some(b)]).with_outputs(vec![Some(a)]).with_name("back");
        graph.add_node(back).unwrap();
        assert!(matches!(graph.topological_order(), Err(GraphError::Cycle(_))));
    }
}
