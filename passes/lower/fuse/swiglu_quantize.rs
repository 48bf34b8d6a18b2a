//! A quantiser of `planish.SwiGLU` becomes `planish.SwiGLUTransformQuantize`.

use planish_ir::Model;
use planish_kernels::DOMAIN;

use super::quantizer::Quantizer;
use crate::pass::{PassContext, PassError};

pub(super) fn fuse_swiglu_quantize(
    model: &mut Model,
    _: &mut PassContext,
) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for quantizer in Quantizer::find_all(graph) {
        let source = quantizer.source(graph).filter(|node| node.is_of(DOMAIN, "SwiGLU"));
        let inputs = source.and_then(|node| Some([node.input(0)?, node.input(1)?]));
        let Some(inputs) = inputs else { continue };
        quantizer.fuse(graph, "SwiGLUTransformQuantize", inputs, None);
        n_rewrites += 1;
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

#[cfg(test)]
mod tests {
    use planish_ir::{Node, Tensor};

    use super::super::super::testing::lowered;
    use super::*;

    #[test]
    fn factors_and_bits_are_kept() {
        let inputs = [("gate", &["b", "s", "8"][..]), ("up", &["b", "s", "8"][..])];
        let lowered = lowered(fuse_swiglu_quantize, &inputs, |graph, x| {
            let p = graph.add_constant("p", Tensor::from_vec(&[2, 2], vec![1f32; 4]));
            let node = Node::new("SwiGLU", vec![Some(x[0]), Some(x[1])]).with_domain(DOMAIN);
            let y = graph.add_op("y", node);
            let node = Node::new("TransformLeftQuantize", vec![Some(y), Some(p)]);
            let outputs = graph.add_op_n("q", node.with_domain(DOMAIN).with("bits", 4i64), 2);
            graph.outputs.push(outputs[1]);
            outputs[0]
        });
        assert_eq!(lowered.ops(), ["planish.SwiGLUTransformQuantize"]);
        let node = lowered.node("SwiGLUTransformQuantize");
        assert_eq!((node.inputs.len(), node.int("bits", 0), node.outputs.len()), (3, 4, 2));
    }
}
