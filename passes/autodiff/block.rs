//! Gradients of whole decoder blocks by finite differences.

use std::collections::HashMap;

use planish_ir::{DataType, Dim, Graph, Tensor, ValueId, ValueType};

use super::check::Check;
use crate::calibrate::{BlockModel, cut_block};
use crate::sites::Layout;
use crate::testing::TinyDecoder;
use crate::transform::Random;

const BATCH: usize = 2;
const SEQUENCE: usize = 4;

/// A block small enough for many evaluations, and random activations for it.
pub(crate) fn small(decoder: TinyDecoder) -> (BlockModel, HashMap<ValueId, Tensor>) {
    let (hidden, head_size, ffn) = (16, 4, 20);
    let model = TinyDecoder { hidden, head_size, ffn, ..decoder }.build(6);
    let layout = Layout::new(&model).expect("a layout");
    let mut block = cut_block(&model, &layout, 1).expect("a block");
    limit_vectors(&mut block.model.graph);
    let mut random = Random::new(8);
    let mut inputs = HashMap::new();
    for value in block.model.graph.inputs.clone() {
        // Cosines and sines need not belong to the same angles.
        let channels = if value == block.input { hidden } else { head_size / 2 };
        let sizes = [Dim::symbol("batch"), Dim::symbol("sequence"), Dim::from(channels)];
        block.model.graph.value_mut(value).ty = ValueType::tensor(DataType::F32, sizes.to_vec());
        let data = (0..BATCH * SEQUENCE * channels).map(|_| random.normal() as f32).collect();
        inputs.insert(value, Tensor::from_vec(&[BATCH, SEQUENCE, channels], data));
    }
    (block, inputs)
}

/// Cuts the outliers off the norms' weights: with them slopes change within a step.
fn limit_vectors(graph: &mut Graph) {
    for value in graph.value_ids().collect::<Vec<_>>() {
        let Some(vector) = graph.constant(value).filter(|t| t.shape().len() == 1) else { continue };
        if vector.dtype() == DataType::F32 {
            let mut data = vector.to_f32_vec().expect("floats");
            data.iter_mut().for_each(|x| *x = x.clamp(-1.5, 1.5));
            let limited = Tensor::from_vec(vector.shape(), data);
            graph.value_mut(value).constant = Some(limited);
        }
    }
}

/// The block's input and every weight.
pub(crate) fn parameters(block: &BlockModel) -> Vec<ValueId> {
    let graph = &block.model.graph;
    let is_weight =
        |v: &ValueId| graph.constant(*v).is_some_and(|tensor| tensor.dtype() == DataType::F32);
    std::iter::once(block.input).chain(graph.value_ids().filter(is_weight)).collect()
}

#[test]
fn gradients_of_a_block_are_the_slopes() {
    for decoder in [
        TinyDecoder::default(),
        TinyDecoder { bias: true, fused: true, ..TinyDecoder::default() },
        TinyDecoder::gpt2(),
    ] {
        let (block, inputs) = small(decoder);
        let parameters = parameters(&block);
        assert!(parameters.len() >= 9, "{}", parameters.len());
        let check = Check { samples: 6, step: 1.0 / 128.0, tolerance: 5e-3 };
        assert_eq!(check.run(&block.model, &inputs, &parameters), Ok(()), "{decoder:?}");
    }
}
