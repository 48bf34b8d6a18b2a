//! Blocks cut out of the exports in `models/`, run one after the other.

mod common;

use std::collections::HashMap;

use common::{canonical, prompt};
use planish_ir::{DataType, Model, Tensor, ValueId};
use planish_passes::calibrate::{BlockModel, cut_block};
use planish_passes::interpret::Interpreter;
use planish_passes::sites::Layout;

fn evaluate(model: &Model, inputs: &HashMap<ValueId, Tensor>, targets: &[ValueId]) -> Vec<Tensor> {
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let mut interpreter = Interpreter::new(&model.graph, &opset, inputs.clone());
    targets.iter().map(|target| interpreter.value(*target).unwrap()).collect()
}

/// The stream after all blocks, from the stream before them.
fn run_blocks(model: &Model, blocks: &[BlockModel], mut stream: Tensor) -> Tensor {
    let prompt = prompt(model);
    for block in blocks {
        let originals: Vec<ValueId> = block.outside.clone();
        let captured = evaluate(model, &prompt, &originals);
        let mut inputs = HashMap::from([(block.input, stream)]);
        inputs.extend(block.outside.iter().copied().zip(captured));
        stream = evaluate(&block.model, &inputs, &[block.output]).remove(0);
    }
    stream
}

#[test]
fn the_blocks_of_the_tiny_models_in_a_row_are_the_model() {
    for tiny in planish_models::tiny_models() {
        let model = canonical(&tiny.dir.join("model.onnx"));
        let layout = Layout::new(&model).unwrap();
        let blocks: Vec<BlockModel> =
            (0..layout.blocks.len()).map(|i| cut_block(&model, &layout, i).unwrap()).collect();
        blocks.iter().for_each(|block| planish_ir::verify(&block.model).unwrap());
        let ends = [layout.blocks[0].input, layout.blocks.last().unwrap().output];
        let [first, expected]: [Tensor; 2] =
            evaluate(&model, &prompt(&model), &ends).try_into().unwrap();
        let expected = expected.to_f32_vec().unwrap();
        let actual = run_blocks(&model, &blocks, first).to_f32_vec().unwrap();
        let largest = expected.iter().fold(1.0f32, |max, x| max.max(x.abs()));
        let pairs = actual.iter().zip(&expected);
        let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-5 * largest, "{}: {difference} of {largest}", tiny.name);
    }
}

#[test]
fn only_masks_that_are_more_than_padding_stay() {
    for tiny in planish_models::tiny_models() {
        let model = canonical(&tiny.dir.join("model.onnx"));
        let layout = Layout::new(&model).unwrap();
        let block = cut_block(&model, &layout, 0).unwrap();
        let graph = &block.model.graph;
        let node = graph.node(block.layout.attentions[0].node);
        let has_mask = node.input(3).is_some();
        let windowed = ["gemma2", "gemma3", "mistral", "starcoder2"];
        let is_more = windowed.iter().chain(&["bloom", "mpt"]).any(|arch| tiny.arch == *arch);
        assert_eq!(has_mask, is_more, "{}", tiny.name);
        let floats =
            block.outside.iter().filter(|o| graph.value(**o).dtype() == Some(DataType::F32));
        let n_floats = floats.count();
        let has_tables = !["gpt2", "opt", "bloom", "mpt"].contains(&tiny.arch.as_str());
        let expected = if has_tables { 2 } else { 0 };
        assert!(n_floats >= expected, "{}: {:?}", tiny.name, block.outside);
    }
}
