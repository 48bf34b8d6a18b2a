//! `RMSNormalization(Add(x, skip))` becomes `planish.AddRMSNorm`, which gives both.

use planish_ir::{Model, Node, NodeId};
use planish_kernels::DOMAIN;
use planish_kernels::infer::Facts;

use super::norm_quantize::norm_inputs;
use crate::pass::{PassContext, PassError};

pub(super) fn fuse_add_norm(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let norms: Vec<NodeId> = model.graph.node_ids().collect();
    let n_rewrites = norms.into_iter().filter(|id| fuse(model, &facts, *id).is_some()).count();
    model.graph.remove_dead();
    Ok(n_rewrites)
}

fn fuse(model: &mut Model, facts: &Facts, norm: NodeId) -> Option<()> {
    let graph = &mut model.graph;
    if !graph.contains_node(norm) {
        return None;
    }
    let node = graph.node(norm);
    let ([sum, weight], epsilon) = norm_inputs(graph, node)?;
    let (output, name) = (node.output(0)?, node.name.clone());
    let (add, _) = graph.producer(sum)?;
    let [x, skip] = graph.node(add).inputs[..] else { return None };
    let shape = |value| facts.get(value).shape;
    let same = shape(x?).is_some() && shape(x?) == shape(skip?);
    // Two norms of one sum: only one of them can give the sum as well.
    if !graph.node(add).is("Add") || !same || !is_constant_free(graph, [x?, skip?]) {
        return None;
    }
    graph.remove_node(norm);
    graph.remove_node(add);
    let fused = Node::new("AddRMSNorm", vec![x, skip, Some(weight)])
        .with_domain(DOMAIN)
        .with_name(name)
        .with("epsilon", epsilon)
        .with_outputs(vec![Some(output), Some(sum)]);
    graph.add_node(fused).expect("the outputs were just freed");
    Some(())
}

fn is_constant_free(graph: &planish_ir::Graph, values: [planish_ir::ValueId; 2]) -> bool {
    values.iter().all(|v| graph.constant(*v).is_none())
}

#[cfg(test)]
mod tests {
    use planish_ir::Tensor;

    use super::super::super::testing::lowered;
    use super::*;

    #[test]
    fn a_sum_and_its_norm_become_one_step() {
        let inputs = [("x", &["b", "s", "4"][..]), ("skip", &["b", "s", "4"][..])];
        let lowered = lowered(fuse_add_norm, &inputs, |graph, x| {
            let weight = graph.add_constant("w", Tensor::from_vec(&[4], vec![1f32; 4]));
            let sum = graph.add_op("sum", Node::new("Add", vec![Some(x[0]), Some(x[1])]));
            let norm = Node::new("RMSNormalization", vec![Some(sum), Some(weight)]);
            let norm = graph.add_op("norm", norm);
            graph.add_op("y", Node::new("Add", vec![Some(sum), Some(norm)]))
        });
        assert_eq!(lowered.ops(), ["planish.AddRMSNorm", "Add"]);
        assert_eq!(lowered.node("AddRMSNorm").outputs.len(), 2);
    }

    #[test]
    fn a_sum_that_broadcasts_is_left_alone() {
        let inputs = [("x", &["b", "s", "4"][..]), ("skip", &["1", "s", "4"][..])];
        let lowered = lowered(fuse_add_norm, &inputs, |graph, x| {
            let weight = graph.add_constant("w", Tensor::from_vec(&[4], vec![1f32; 4]));
            let sum = graph.add_op("sum", Node::new("Add", vec![Some(x[0]), Some(x[1])]));
            graph.add_op("norm", Node::new("RMSNormalization", vec![Some(sum), Some(weight)]))
        });
        assert_eq!(lowered.ops(), ["Add", "RMSNormalization"]);
    }
}
