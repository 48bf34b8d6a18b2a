//! What the fusions into a quantiser share.

use planish_ir::{Graph, Node, NodeId, ValueId};
use planish_kernels::DOMAIN;

/// A node that quantises the rows of an activation, after a transform or without.
pub(super) struct Quantizer {
    id: NodeId,
    /// The activation.
    pub x: ValueId,
    /// The transform's factors; none, one or two.
    factors: Vec<Option<ValueId>>,
}

impl Quantizer {
    /// All quantisers that alone read the activation that they quantise.
    pub fn find_all(graph: &Graph) -> Vec<Self> {
        graph.node_ids().filter_map(|id| Self::find(graph, id)).collect()
    }

    fn find(graph: &Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id);
        let ops = ["DynamicQuantize", "TransformQuantize", "TransformLeftQuantize"];
        let x = node.input(0).filter(|_| ops.iter().any(|op| node.is_of(DOMAIN, op)))?;
        let is_private = graph.users(x).len() == 1 && !graph.is_output(x);
        is_private.then(|| Self { id, x, factors: node.inputs[1..].to_vec() })
    }

    /// The node that makes the activation as its first output.
    pub fn source<'g>(&self, graph: &'g Graph) -> Option<&'g Node> {
        graph.producer(self.x).filter(|(_, index)| *index == 0).map(|(id, _)| graph.node(id))
    }

    /// Puts `op_type`, which reads `inputs` and the factors, in the place of quantiser and source.
    pub fn fuse(
        self,
        graph: &mut Graph,
        op_type: &str,
        inputs: [ValueId; 2],
        epsilon: Option<f32>,
    ) {
        let mut fused = graph.node(self.id).clone();
        fused.op_type = op_type.to_owned();
        fused.inputs = inputs.into_iter().map(Some).chain(self.factors).collect();
        if let Some(epsilon) = epsilon {
            fused = fused.with("epsilon", epsilon);
        }
        graph.replace_node(self.id, fused).expect("the outputs were just freed");
    }
}
