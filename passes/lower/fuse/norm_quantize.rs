//! A quantiser of `RMSNormalization` becomes `planish.NormTransformQuantize`.

use planish_ir::{Graph, Model, Node, ValueId};

use super::quantizer::Quantizer;
use crate::pass::{PassContext, PassError};

/// `epsilon` of RMSNormalization where a node does not give it.
const EPSILON: f32 = 1e-5;

pub(super) fn fuse_norm_quantize(
    model: &mut Model,
    _: &mut PassContext,
) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for quantizer in Quantizer::find_all(graph) {
        let norm = quantizer.source(graph).and_then(|node| norm_inputs(graph, node));
        let Some((inputs, epsilon)) = norm else { continue };
        quantizer.fuse(graph, "NormTransformQuantize", inputs, Some(epsilon));
        n_rewrites += 1;
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// The activation, weight and epsilon of a norm over the last axis.
pub(super) fn norm_inputs(graph: &Graph, node: &Node) -> Option<([ValueId; 2], f32)> {
    let (x, weight) = (node.input(0)?, node.input(1)?);
    let is_row = graph.constant(weight).is_some_and(|w| w.shape().len() == 1);
    let is_norm = node.is("RMSNormalization") && node.int("axis", -1) == -1 && is_row;
    is_norm.then(|| ([x, weight], node.float("epsilon", EPSILON)))
}

#[cfg(test)]
mod tests {
    use planish_ir::Tensor;
    use planish_kernels::DOMAIN;

    use super::super::super::testing::{Lowered, lowered};
    use super::*;

    fn run(is_read_twice: bool) -> Lowered {
        lowered(fuse_norm_quantize, &[("x", &["b", "s", "4"])], |graph, x| {
            let weight = graph.add_constant("w", Tensor::from_vec(&[4], vec![1f32; 4]));
            let norm = Node::new("RMSNormalization", vec![Some(x[0]), Some(weight)]);
            let norm = graph.add_op("norm", norm.with("epsilon", 1e-6f32));
            let node = Node::new("DynamicQuantize", vec![Some(norm)]).with_domain(DOMAIN);
            let outputs = graph.add_op_n("q", node.with("bits", 4i64), 2);
            graph.outputs.push(outputs[1]);
            if is_read_twice {
                graph.outputs.push(norm);
            }
            outputs[0]
        })
    }

    #[test]
    fn norm_and_quantiser_become_one_step() {
        let lowered = run(false);
        assert_eq!(lowered.ops(), ["planish.NormTransformQuantize"]);
        let node = lowered.node("NormTransformQuantize");
        assert_eq!((node.inputs.len(), node.float("epsilon", 0.0)), (2, 1e-6));
    }

    #[test]
    fn a_norm_that_others_read_stays() {
        assert_eq!(run(true).ops(), ["RMSNormalization", "planish.DynamicQuantize"]);
    }
}
