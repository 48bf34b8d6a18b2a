//! Real exports come back as they were.

mod common;

use std::fs::File;
use std::path::Path;

use common::describe::assert_same;
use common::normal::normalise;
use planish_ir::{Model, Tensor, TensorType, ValueType};
use planish_onnx::proto::ModelProto;
use planish_onnx::{ExternalData, ValueInfo, WriteOptions, read_model, write_model};
use prost::Message;

fn proto(path: &Path) -> ModelProto {
    let mut proto = ModelProto::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
    normalise(&mut proto);
    proto
}

/// The first line in which the two print differently.
fn first_difference(before: &ModelProto, after: &ModelProto) -> Option<String> {
    let (before, after) = (format!("{before:#?}"), format!("{after:#?}"));
    let mut lines = before.lines().zip(after.lines()).enumerate();
    lines.find(|(_, (a, b))| a != b).map(|(i, (a, b))| format!("line {i}: {a} became {b}"))
}

#[test]
fn tiny_models_come_back_identical() {
    for path in common::tiny_models() {
        let model = read_model(&path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("model.onnx");
        let report = write_model(&model, &copy, &WriteOptions::default()).unwrap();
        assert_eq!(report.bytes, copy.metadata().unwrap().len());
        assert_same(&model, &read_model(&copy).unwrap());
        let (before, after) = (proto(&path), proto(&copy));
        if let Some(difference) = first_difference(&before, &after) {
            panic!("{} says something else when written again: {difference}", path.display());
        }
    }
}

#[test]
fn tiny_models_come_back_from_external_data() {
    let external_data = ExternalData::Beside { file_name: "weights.bin".into(), min_bytes: 256 };
    let options = WriteOptions { external_data, value_info: ValueInfo::Declared };
    for path in common::tiny_models() {
        let model = read_model(&path).unwrap();
        assert_same(&model, &common::there_and_back(&model, &options));
    }
}

/// The graphs beside a sparse file as large as their external data, which takes no room.
#[test]
fn smollm2_graphs_come_back_identical() {
    for path in common::smollm2_models() {
        let folder = tempfile::tempdir().unwrap();
        let original = folder.path().join("model.onnx");
        std::fs::copy(&path, &original).unwrap();
        let data = File::create(folder.path().join("model.onnx.data")).unwrap();
        data.set_len(538_169_344).unwrap();
        let model = read_model(&original).unwrap();
        let mut light = model.clone();
        shrink_weights(&mut light);
        assert_same(&light, &common::there_and_back(&light, &WriteOptions::default()));
    }
}

/// Puts one number in the place of each large weight, so that the test writes no gigabytes.
fn shrink_weights(model: &mut Model) {
    let graph = &mut model.graph;
    for id in graph.value_ids().collect::<Vec<_>>() {
        if graph.value(id).constant.as_ref().is_some_and(|t| t.n_elements() > 100_000) {
            let small = Tensor::from_vec(&[1], vec![id.index() as f32]);
            let value = graph.value_mut(id);
            value.ty = ValueType::Tensor(TensorType::of(&small));
            value.constant = Some(small);
        }
    }
}
