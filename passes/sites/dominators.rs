//! Values through which every path must pass.

use std::collections::HashMap;

use planish_ir::{Graph, Node, NodeId, ValueId};

/// Everything downstream of one value, with immediate dominators: the dominator of a value is the
/// nearest one before it that every path from the root to it goes through (Cooper, Harvey and
/// Kennedy, "A simple, fast dominance algorithm"; one sweep suffices, as the graph has no cycle).
pub(super) struct Cone {
    entries: HashMap<ValueId, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    dominator: ValueId,
    depth: usize,
}

impl Cone {
    /// The cone of `root`; `order` is a topological order of the graph. Sizes are not followed:
    /// what reads only the shape of a value does not depend on it.
    pub(super) fn new(graph: &Graph, order: &[NodeId], root: ValueId) -> Self {
        let mut cone =
            Self { entries: HashMap::from([(root, Entry { dominator: root, depth: 0 })]) };
        for id in order {
            let node = graph.node(*id);
            let Some(dominator) = cone.dominator_of_node(graph, *id) else { continue };
            if node.is("Shape") || node.is("Size") {
                continue;
            }
            let depth = cone.entries[&dominator].depth + 1;
            for output in node.outputs.iter().flatten() {
                cone.entries.insert(*output, Entry { dominator, depth });
            }
        }
        cone
    }

    /// Whether `value` depends on the root.
    pub(super) fn contains(&self, value: ValueId) -> bool {
        self.entries.contains_key(&value)
    }

    /// Whether an input of `node` depends on the root.
    pub(super) fn is_read_by(&self, node: &Node) -> bool {
        node.inputs.iter().flatten().any(|input| self.contains(*input))
    }

    /// The nearest value that every path from the root to the node goes through; `None` if the
    /// node does not depend on the root.
    pub(super) fn dominator_of_node(&self, graph: &Graph, node: NodeId) -> Option<ValueId> {
        let inputs = graph.inputs_and_captures(node).into_iter();
        inputs.filter(|value| self.contains(*value)).reduce(|a, b| self.meet(a, b))
    }

    /// The nearest value that all paths to `a` and all paths to `b` go through.
    fn meet(&self, mut a: ValueId, mut b: ValueId) -> ValueId {
        while a != b {
            if self.entries[&a].depth >= self.entries[&b].depth {
                a = self.entries[&a].dominator;
            } else {
                b = self.entries[&b].dominator;
            }
        }
        a
    }

    /// The values that every path from the root to `value` goes through, from the root to `value`
    /// itself; empty if it does not depend on the root.
    pub(super) fn chain(&self, value: ValueId) -> Vec<ValueId> {
        let mut chain = Vec::new();
        let mut current = self.contains(value).then_some(value);
        while let Some(value) = current {
            chain.push(value);
            let dominator = self.entries[&value].dominator;
            current = (dominator != value).then_some(dominator);
        }
        chain.reverse();
        chain
    }
}

#[cfg(test)]
mod tests {
    use planish_ir::ValueType;

    use super::*;

    #[test]
    fn a_residual_connection_hides_what_it_skips() {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let branch = graph.add_op("branch", Node::new("Neg", vec![Some(x)]));
        let sum = graph.add_op("sum", Node::new("Add", vec![Some(x), Some(branch)]));
        let parts = graph.add_op_n("part", Node::new("Split", vec![Some(sum)]), 2);
        let y = graph.add_op("y", Node::new("Mul", vec![Some(parts[0]), Some(parts[1])]));
        let cone = Cone::new(&graph, &graph.topological_order().unwrap(), x);
        assert_eq!(cone.chain(y), [x, sum, y]);
        assert_eq!(cone.chain(branch), [x, branch]);
    }

    #[test]
    fn sizes_are_no_dependence() {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        let shape = graph.add_op("shape", Node::new("Shape", vec![Some(x)]));
        let cone = Cone::new(&graph, &graph.topological_order().unwrap(), x);
        assert!(!cone.contains(shape) && cone.chain(shape).is_empty());
    }
}
