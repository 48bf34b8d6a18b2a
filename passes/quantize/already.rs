//! Models that are quantised already.

use planish_ir::{Graph, Node};
use planish_kernels::DOMAIN;

/// Operators whose weights are codes, of ONNX and of ONNX Runtime.
const OF_CODES: [&str; 14] = [
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "QLinearMatMul",
    "QGemm",
    "QAttention",
    "QMoE",
    "QOrderedMatMul",
    "MatMulNBits",
    "MatMulBnb4",
    "MatMulFpQ4",
    "GatherBlockQuantized",
    "ConvInteger",
];

/// A node that shows that a model was quantised before: an operator of planish's own, one whose
/// weight is codes, or a `DequantizeLinear` of a matrix of constants. The first in order.
pub fn quantized_node(graph: &Graph) -> Option<&Node> {
    let mut nodes = graph.node_ids().map(|id| graph.node(id));
    nodes.find(|node| {
        let is_weight = || {
            let codes = node.input(0);
            let is_matrix = |v| graph.constant(v).is_some_and(|codes| codes.shape().len() >= 2);
            let is_node = |v| graph.producer_node(v).is_some_and(|node| node.is("Constant"));
            codes.is_some_and(|v| is_matrix(v) || is_node(v))
        };
        node.domain == DOMAIN
            || OF_CODES.contains(&node.op_type.as_str())
            || node.is("DequantizeLinear") && is_weight()
    })
}

#[cfg(test)]
mod tests {
    use planish_ir::{Tensor, ValueType};

    use super::*;

    #[test]
    fn a_dequantised_weight_shows_it_and_a_dequantised_activation_does_not() {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let scale = graph.add_constant("scale", Tensor::scalar(0.5f32));
        graph.add_op("y", Node::new("DequantizeLinear", vec![Some(x), Some(scale)]));
        assert!(quantized_node(&graph).is_none());
        let codes = graph.add_constant("codes", Tensor::from_int4_codes(&[2, 2], &[1, 2, 3, 4]));
        let node = Node::new("DequantizeLinear", vec![Some(codes), Some(scale)]);
        graph.add_op("w", node.with_name("weight"));
        assert_eq!(quantized_node(&graph).unwrap().name, "weight");
    }
}
