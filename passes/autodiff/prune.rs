//! Taking out what rules added and nothing needs.

use std::collections::HashSet;

use planish_ir::{Graph, GraphError, NodeId, ValueId};

/// The nodes and values of a graph at some time.
pub(super) struct Vertices {
    nodes: HashSet<NodeId>,
    values: HashSet<ValueId>,
}

impl Vertices {
    pub(super) fn of(graph: &Graph) -> Self {
        Self { nodes: graph.node_ids().collect(), values: graph.value_ids().collect() }
    }

    /// Removes the nodes and values that were added since and that `kept` does not depend on.
    pub(super) fn prune(
        &self,
        graph: &mut Graph,
        kept: &[Option<ValueId>],
    ) -> Result<(), GraphError> {
        let unread = |graph: &Graph, value: ValueId| {
            graph.users(value).is_empty() && !graph.is_output(value) && !kept.contains(&Some(value))
        };
        for id in graph.topological_order()?.into_iter().rev() {
            let is_dead = graph.node(id).outputs.iter().flatten().all(|v| unread(graph, *v));
            if is_dead && !self.nodes.contains(&id) {
                graph.remove_node(id);
            }
        }
        let added: Vec<ValueId> = graph.value_ids().filter(|v| !self.values.contains(v)).collect();
        for value in added {
            if unread(graph, value) && graph.producer(value).is_none() {
                graph.remove_value(value);
            }
        }
        Ok(())
    }
}
