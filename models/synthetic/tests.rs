//! Tests of generated models.

use std::fs;

use planish_ir::Attribute;
use planish_onnx::read_model;

use super::*;

fn generated(shape: &LlamaShape, dtype: FloatType, seed: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    generate(shape, dtype, seed, &folder.path().join("model"), &mut |_| ()).unwrap();
    folder
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bytes = |seed, file: &str| {
        let folder = generated(&LlamaShape::TINY, FloatType::F16, seed);
        fs::read(folder.path().join("model").join(file)).unwrap()
    };
    assert!(bytes(1, DATA) == bytes(1, DATA));
    assert!(bytes(1, DATA) != bytes(2, DATA));
    assert!(bytes(1, "model.onnx") == bytes(2, "model.onnx"));
}

#[test]
fn weights_have_the_type_and_the_spread_that_was_asked_for() {
    for (dtype, expected) in [(FloatType::F16, DataType::F16), (FloatType::F32, DataType::F32)] {
        let folder = generated(&LlamaShape::TINY, dtype, 1);
        let model = read_model(&folder.path().join("model/model.onnx")).unwrap();
        let graph = &model.graph;
        let head = graph.producer_node(graph.outputs[0]).unwrap().input(1).unwrap();
        let head = graph.constant(head).unwrap();
        assert_eq!((head.dtype(), head.shape()), (expected, &[128, 512][..]));
        let values = head.to_f32_vec().unwrap();
        let squares = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        assert!((squares.sqrt() - 0.02).abs() < 0.0005, "{squares}");
    }
}

#[test]
fn one_channel_of_the_stream_is_larger_in_all_that_writes_to_it() {
    let folder = generated(&LlamaShape::TINY, FloatType::F32, 3);
    let graph = read_model(&folder.path().join("model/model.onnx")).unwrap().graph;
    let largest = |name: &str| {
        let tensor = graph.constant(graph.find_value(name).unwrap()).unwrap();
        let values = tensor.to_f32_vec().unwrap();
        let power = |c: usize| values.iter().skip(c).step_by(128).map(|x| x * x).sum::<f32>();
        (0..128).max_by(|a, b| power(*a).total_cmp(&power(*b))).unwrap()
    };
    let writes_to_stream = |id| {
        let tensor = graph.constant(id)?;
        let is_matrix = tensor.shape() == [256, 128];
        is_matrix.then(|| graph.value(id).name.clone())
    };
    let channel = largest("model.model.embed_tokens.weight");
    let down: Vec<String> = graph.value_ids().filter_map(writes_to_stream).collect();
    assert_eq!(down.len(), 2);
    assert!(down.iter().all(|name| largest(name) == channel));
}

/// The graph itself, without 16 GB of weights.
#[test]
fn the_shape_of_llama_3_8b_has_eight_billion_parameters() {
    let written = graph::write(&LlamaShape::LLAMA_3_8B, "float16");
    let count = |w: &weights::Weight| w.shape.iter().product::<usize>();
    assert_eq!(written.weights.iter().map(count).sum::<usize>(), 8_030_261_248);
    let layout = Layout::new(&written.weights, DataType::F16);
    assert!((16_060_522_496..16_061_000_000).contains(&layout.bytes), "{}", layout.bytes);
    let model = text::parse(&written.text).unwrap();
    let attention = model.graph.node_ids().find(|id| model.graph.node(*id).is("Attention"));
    let scale = &model.graph.node(attention.unwrap()).attributes["scale"];
    assert_eq!(scale.as_float(), Some(1.0 / 128f32.sqrt()));
    assert!(matches!(scale, Attribute::Float(_)));
}

#[test]
fn impossible_shapes_and_existing_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |shape: &LlamaShape, name: &str| {
        let path = folder.path().join(name);
        let result = generate(shape, FloatType::F16, 1, &path, &mut |_| ());
        result.unwrap_err().to_string()
    };
    let no_layers = LlamaShape { layers: 0, ..LlamaShape::TINY };
    assert!(refused(&no_layers, "a").contains("0"));
    let odd = LlamaShape { kv_heads: 3, ..LlamaShape::TINY };
    assert!(refused(&odd, "a").contains("multiple"));
    fs::create_dir(folder.path().join("b")).unwrap();
    assert!(refused(&LlamaShape::TINY, "b").contains("b: "));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
