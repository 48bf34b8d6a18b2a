//! Readers of the shape of a past that is no longer a tensor.

use planish_ir::{DataType, Dim, Graph, Node, NodeId, Tensor, ValueId, ValueType};

use super::PAST_LENGTH;

/// Sizes of caches `[batch, heads, past, head_size]` that left the graph, as tensors INT64 `[1]`.
pub(super) struct PastSizes {
    /// A graph input whose first size is the batch.
    tokens: ValueId,
    batch: Option<ValueId>,
}

impl PastSizes {
    /// Takes the size of the batch from an input of integers, such as the token ids, whose first
    /// size is `batch`.
    pub fn new(graph: &Graph, batch: Option<&Dim>) -> Option<Self> {
        let is_tokens = |v: &ValueId| {
            let value = graph.value(*v);
            let first = value.shape().and_then(|shape| shape.first());
            value.dtype().is_some_and(DataType::is_integer) && first.is_some() && first == batch
        };
        let tokens = graph.inputs.iter().copied().find(is_tokens)?;
        Some(Self { tokens, batch: None })
    }

    /// Puts the sizes in the place of what the `Shape` node `id` says of a past with the given
    /// heads and head size.
    pub fn replace_shape(&mut self, graph: &mut Graph, id: NodeId, heads: i64, head_size: i64) {
        let (Some(old), start, end) = bounds(graph.node(id)) else { return };
        let parts: Vec<ValueId> =
            (start..end).map(|i| self.size(graph, i, heads, head_size)).collect();
        let inputs = parts.into_iter().map(Some).collect();
        let new = graph.add_op("past_shape", Node::new("Concat", inputs).with("axis", 0i64));
        graph.replace_value(old, new);
        graph.remove_node(id);
    }

    fn size(&mut self, graph: &mut Graph, axis: i64, heads: i64, head_size: i64) -> ValueId {
        match axis {
            0 => self.batch(graph),
            1 => number(graph, heads),
            2 => past_length(graph),
            _ => number(graph, head_size),
        }
    }

    fn batch(&mut self, graph: &mut Graph) -> ValueId {
        *self.batch.get_or_insert_with(|| {
            let shape = Node::new("Shape", vec![Some(self.tokens)]);
            graph.add_op("batch", shape.with("start", 0i64).with("end", 1i64))
        })
    }
}

/// The output of a `Shape` node and the range of axes that it gives, of four.
fn bounds(node: &Node) -> (Option<ValueId>, i64, i64) {
    let from_front = |axis: i64| if axis < 0 { axis + 4 } else { axis }.clamp(0, 4);
    let (start, end) = (from_front(node.int("start", 0)), from_front(node.int("end", 4)));
    (node.output(0), start, end.max(start))
}

fn number(graph: &mut Graph, value: i64) -> ValueId {
    graph.add_constant("size", Tensor::from_vec(&[1], vec![value]))
}

/// The graph input with the length of the past, added on first use.
fn past_length(graph: &mut Graph) -> ValueId {
    if let Some(value) = graph.find_value(PAST_LENGTH) {
        return value;
    }
    let ty = ValueType::tensor(DataType::I64, vec![Dim::from(1i64)]);
    let value = graph.new_value(PAST_LENGTH, ty);
    graph.inputs.push(value);
    value
}
