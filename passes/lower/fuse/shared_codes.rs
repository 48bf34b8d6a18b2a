//! Quantised products that read the same codes become one `planish.QuantizedMatMulN`.

use std::collections::BTreeMap;

use planish_ir::{Graph, Model, Node, NodeId, ValueId};
use planish_kernels::DOMAIN;

use crate::pass::{PassContext, PassError};

pub(super) fn fuse_shared_codes(
    model: &mut Model,
    _: &mut PassContext,
) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let mut groups: BTreeMap<(ValueId, ValueId, i64), Vec<NodeId>> = BTreeMap::new();
    for id in graph.node_ids() {
        if let Some(key) = key(graph.node(id)) {
            groups.entry(key).or_default().push(id);
        }
    }
    let groups: Vec<_> = groups.into_iter().filter(|(_, nodes)| nodes.len() > 1).collect();
    let n_rewrites = groups.len();
    for ((codes, scale, block_size), nodes) in groups {
        fuse(graph, [codes, scale], block_size, &nodes);
    }
    Ok(n_rewrites)
}

/// Codes, their scale, and the rows that share a weight scale (0 for all) of a quantised product.
fn key(node: &Node) -> Option<(ValueId, ValueId, i64)> {
    let block_size = match node.op_type.as_str() {
        "QuantizedMatMul" => 0,
        "BlockQuantizedMatMul" => node.int("block_size", 0),
        _ => return None,
    };
    let is_complete = node.domain == DOMAIN && node.inputs.len() == 4;
    Some((node.input(0).filter(|_| is_complete)?, node.input(1)?, block_size))
}

fn fuse(graph: &mut Graph, [codes, scale]: [ValueId; 2], block_size: i64, nodes: &[NodeId]) {
    let mut fused = Node::new("QuantizedMatMulN", vec![Some(codes), Some(scale)])
        .with_domain(DOMAIN)
        .with("block_size", block_size);
    for id in nodes {
        let node = graph.remove_node(*id);
        fused.inputs.extend(&node.inputs[2..]);
        fused.outputs.push(node.output(0));
        if fused.name.is_empty() {
            fused.name = node.name;
        }
    }
    graph.add_node(fused).expect("the outputs were just freed");
}

#[cfg(test)]
mod tests {
    use planish_ir::{DataType, Tensor};

    use super::super::super::testing::{input, model};
    use super::*;

    #[test]
    fn products_of_the_same_codes_become_one_step() {
        let mut model = model();
        let graph = &mut model.graph;
        let codes = input(graph, "codes", DataType::I8, &["b", "s", "4"]);
        let scale = input(graph, "scale", DataType::F32, &["b", "s", "1"]);
        let other = input(graph, "other", DataType::F32, &["b", "s", "1"]);
        for (name, scale) in [("q", scale), ("k", scale), ("v", scale), ("o", other)] {
            let w = graph.add_constant("w", Tensor::from_int4_codes(&[4, 2], &[1; 8]));
            let s = graph.add_constant("s", Tensor::from_vec(&[2], vec![1f32; 2]));
            let inputs = [codes, scale, w, s].map(Some).to_vec();
            let y = graph.add_op(name, Node::new("QuantizedMatMul", inputs).with_domain(DOMAIN));
            graph.outputs.push(y);
        }
        let n = fuse_shared_codes(&mut model, &mut PassContext::default()).unwrap();
        planish_ir::verify(&model).unwrap();
        assert_eq!((n, model.graph.n_nodes()), (1, 2));
        let (node, index) = model.graph.producer(model.graph.outputs[2]).unwrap();
        assert_eq!((model.graph.node(node).inputs.len(), index), (8, 2));
    }
}
