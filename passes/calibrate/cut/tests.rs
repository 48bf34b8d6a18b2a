//! Blocks cut out of tiny decoders.

use std::collections::HashMap;

use planish_ir::{Node, Tensor, ValueId};

use super::*;
use crate::autodiff::check::evaluate;
use crate::testing::TinyDecoder;

const BATCH: usize = 2;
const SEQUENCE: usize = 5;

/// Token ids, positions and empty caches.
fn prompt(model: &Model) -> HashMap<ValueId, Tensor> {
    let ids = |i: usize| (3 + 17 * i as i64) % 61;
    let positions = |i: usize| (i % SEQUENCE) as i64;
    let tensor = |(index, value): (usize, &ValueId)| {
        let list = |element: &dyn Fn(usize) -> i64| {
            Tensor::from_vec(&[BATCH, SEQUENCE], (0..BATCH * SEQUENCE).map(element).collect())
        };
        let empty = || {
            let shape = model.graph.value(*value).shape().unwrap();
            let [heads, size] = [1, 3].map(|axis: usize| shape[axis].as_usize().unwrap());
            Tensor::from_vec(&[BATCH, heads, 0, size], Vec::<f32>::new())
        };
        (*value, [list(&ids), list(&positions)].get(index).cloned().unwrap_or_else(empty))
    };
    model.graph.inputs.iter().enumerate().map(tensor).collect()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let (a, b) = (a.to_f32_vec().unwrap(), b.to_f32_vec().unwrap());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn blocks_in_a_row_are_the_decoder() {
    for decoder in [TinyDecoder { n_blocks: 3, ..TinyDecoder::default() }, TinyDecoder::gpt2()] {
        let model = decoder.build(1);
        let layout = Layout::new(&model).unwrap();
        let prompt = prompt(&model);
        let (first, last) = (layout.blocks[0].input, layout.blocks.last().unwrap().output);
        let [mut stream, expected]: [Tensor; 2] =
            evaluate(&model, &prompt, &[first, last]).unwrap().try_into().unwrap();
        for index in 0..layout.blocks.len() {
            let block = cut_block(&model, &layout, index).unwrap();
            planish_ir::verify(&block.model).unwrap();
            let originals: Vec<ValueId> = block.outside.iter().map(|o| o.original).collect();
            let captured = evaluate(&model, &prompt, &originals).unwrap();
            let mut inputs = HashMap::from([(block.input(), stream)]);
            inputs.extend(block.outside.iter().map(|o| o.value).zip(captured));
            stream = evaluate(&block.model, &inputs, &[block.output()]).unwrap().remove(0);
        }
        assert!(largest_difference(&stream, &expected) < 1e-5);
    }
}

#[test]
fn the_layout_is_that_of_the_cut_model() {
    for decoder in [TinyDecoder::default(), TinyDecoder::gpt2()] {
        let model = decoder.build(2);
        let layout = Layout::new(&model).unwrap();
        let block = cut_block(&model, &layout, 1).unwrap();
        let found = Layout::new(&block.model).unwrap();
        assert_eq!(block.layout.linears, found.linears);
        assert_eq!(block.layout.sites, found.sites);
        assert_eq!(block.layout.attentions, found.attentions);
        assert_eq!(block.layout.blocks, found.blocks);
        let n_sites = block.sites.len();
        assert_eq!(block.sites, layout.blocks[1].sites);
        assert_eq!((n_sites, block.attentions.as_slice()), (4, &[AttentionId(1)][..]));
        assert_eq!(block.linears[0], layout.site(block.sites[0]).linears[0]);
        for (cut, original) in block.layout.linears.iter().zip(&block.linears) {
            let original = layout.linear(*original);
            assert_eq!(block.values[&original.output], cut.output);
            assert_eq!(block.nodes[&original.node], cut.node);
        }
    }
}

#[test]
fn weights_are_shared_and_shapes_have_no_past() {
    let model = TinyDecoder::default().build(3);
    let layout = Layout::new(&model).unwrap();
    let block = cut_block(&model, &layout, 0).unwrap();
    for (cut, original) in block.layout.linears.iter().zip(&block.linears) {
        let original = model.graph.constant(layout.linear(*original).weight).unwrap();
        let copied = block.model.graph.constant(cut.weight).unwrap();
        assert_eq!(copied.bytes().as_ptr(), original.bytes().as_ptr());
    }
    let shape = |value| format!("{:?}", block.model.graph.value(value).shape().unwrap());
    assert_eq!(shape(block.input()), "[batch, sequence, 48]");
    assert_eq!(shape(block.output()), "[batch, sequence, 48]");
    let outside: Vec<String> = block.outside.iter().map(|o| shape(o.value)).collect();
    assert_eq!(outside, ["[batch, sequence, 6]"; 2]);
    let attention = block.model.graph.node(block.layout.attentions[0].node);
    assert_eq!((attention.inputs.len(), attention.outputs.len()), (3, 1));
}

#[test]
fn weights_that_are_computed_stay_in_the_block() {
    let mut model = TinyDecoder::default().build(4);
    let layout = Layout::new(&model).unwrap();
    let linear = layout.linear(layout.site(layout.blocks[0].sites[1]).linears[0]).clone();
    let graph = &mut model.graph;
    let half = graph.add_constant("half", Tensor::scalar(0.5f32));
    let scaled = graph.add_op("scaled", Node::new("Mul", vec![Some(linear.weight), Some(half)]));
    graph.set_input(linear.node, 1, Some(scaled));
    let block = cut_block(&model, &layout, 0).unwrap();
    assert!(block.values.contains_key(&scaled) && block.outside.len() == 2);
}

#[test]
fn what_needs_a_cache_is_refused() {
    let mut model = TinyDecoder::default().build(5);
    let layout = Layout::new(&model).unwrap();
    assert!(matches!(cut_block(&model, &layout, 2), Err(CutError::NoBlock(2))));
    let block = &layout.blocks[0];
    let attention = layout.attention(block.attentions[0]).node;
    let graph = &mut model.graph;
    let key = graph.node(attention).output(1).unwrap();
    let sum = graph.add_op("sum", Node::new("ReduceSum", vec![Some(key)]).with("keepdims", 0i64));
    let (last, _) = graph.producer(block.output).unwrap();
    let branch = graph.node(last).input(1).unwrap();
    let moved = graph.add_op("moved", Node::new("Add", vec![Some(branch), Some(sum)]));
    graph.set_input(last, 1, Some(moved));
    let layout = Layout::new(&model).unwrap();
    let error = cut_block(&model, &layout, 0).unwrap_err().to_string();
    assert_eq!(error, "block 0 needs its cache: \"present.0.key\" is read");
}
