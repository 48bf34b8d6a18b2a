//! `Add(residual, QuantizedMatMul(…))` becomes `planish.QuantizedMatMulAdd`.

use planish_ir::{Graph, Model, Node, NodeId, ValueId};
use planish_kernels::DOMAIN;
use planish_kernels::infer::Facts;

use crate::pass::{PassContext, PassError};

pub(super) fn fuse_residual(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let adds: Vec<NodeId> = graph.node_ids().filter(|id| graph.node(*id).is("Add")).collect();
    Ok(adds.into_iter().filter(|add| fuse(graph, &facts, *add).is_some()).count())
}

fn fuse(graph: &mut Graph, facts: &Facts, add: NodeId) -> Option<()> {
    let [a, b] = graph.node(add).inputs[..] else { return None };
    let (a, b) = (a?, b?);
    let shape = |value| facts.get(value).shape;
    if shape(a).is_none() || shape(a) != shape(b) {
        return None;
    }
    // The later of two products takes the other in.
    let (product, residual) =
        [(b, a), (a, b)].into_iter().find(|(value, _)| is_product(graph, *value))?;
    let (producer, _) = graph.producer(product)?;
    let output = graph.node(add).output(0)?;
    graph.remove_node(add);
    let mut node = graph.remove_node(producer);
    let block_size = node.int("block_size", 0);
    node.inputs.push(Some(residual));
    let fused = Node::new("QuantizedMatMulAdd", node.inputs)
        .with_domain(DOMAIN)
        .with_name(node.name)
        .with("block_size", block_size)
        .with_outputs(vec![Some(output)]);
    graph.add_node(fused).expect("the output was just freed");
    Some(())
}

/// A quantised product that nothing but the sum reads.
fn is_product(graph: &Graph, value: ValueId) -> bool {
    let Some((id, 0)) = graph.producer(value) else { return false };
    let node = graph.node(id);
    node.domain == DOMAIN
        && ["QuantizedMatMul", "BlockQuantizedMatMul"].contains(&node.op_type.as_str())
        && node.inputs.len() == 4
        && graph.users(value).len() == 1
        && !graph.is_output(value)
}

#[cfg(test)]
mod tests {
    use planish_ir::{DataType, Tensor};

    use super::super::super::testing::{input, model};
    use super::*;

    fn with_sum(shape: &[&str], read_twice: bool) -> Model {
        let mut model = model();
        let graph = &mut model.graph;
        let codes = input(graph, "codes", DataType::I8, &["b", "s", "4"]);
        let scale = input(graph, "scale", DataType::F32, &["b", "s", "1"]);
        let residual = input(graph, "x", DataType::F32, shape);
        let w = graph.add_constant("w", Tensor::from_int4_codes(&[4, 2], &[1; 8]));
        let s = graph.add_constant("s", Tensor::from_vec(&[2], vec![1f32; 2]));
        let inputs = [codes, scale, w, s].map(Some).to_vec();
        let y = graph.add_op("y", Node::new("QuantizedMatMul", inputs).with_domain(DOMAIN));
        let sum = graph.add_op("sum", Node::new("Add", vec![Some(residual), Some(y)]));
        graph.outputs.push(sum);
        if read_twice {
            graph.outputs.push(y);
        }
        model
    }

    #[test]
    fn a_product_takes_the_residual_in() {
        let mut model = with_sum(&["b", "s", "2"], false);
        assert_eq!(fuse_residual(&mut model, &mut PassContext::default()).unwrap(), 1);
        planish_ir::verify(&model).unwrap();
        let (id, _) = model.graph.producer(model.graph.outputs[0]).unwrap();
        assert_eq!(model.graph.node(id).op_type, "QuantizedMatMulAdd");
        assert_eq!(model.graph.n_nodes(), 1);
    }

    #[test]
    fn other_sums_are_left_alone() {
        for (shape, read_twice) in [(["b", "s", "2"], true), (["1", "1", "2"], false)] {
            let mut model = with_sum(&shape, read_twice);
            assert_eq!(fuse_residual(&mut model, &mut PassContext::default()).unwrap(), 0);
        }
    }
}
