//! Weights in files beside the model.

mod common;

use std::fs;
use std::path::Path;

use common::describe::assert_same;
use common::proto::{graph, model, tensor};
use planish_ir::{Graph, Model, Tensor, ValueType};
use planish_onnx::proto::{GraphProto, StringStringEntryProto, TensorProto};
use planish_onnx::{
    ExternalData, ValueInfo, WriteError, WriteOptions, read_model, read_model_bytes, write_model,
};
use prost::Message;

/// A model in `folder` with one float tensor of 4 elements at `location`.
fn write_reference(folder: &Path, entries: &[(&str, &str)]) -> std::path::PathBuf {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some((*key).to_owned()),
        value: Some((*value).to_owned()),
    };
    let external = TensorProto {
        data_location: Some(1),
        external_data: entries.iter().map(entry).collect(),
        ..tensor("w", 1, &[4], &[])
    };
    let file = GraphProto { initializer: vec![external], ..graph(&[], vec![], &["w"]) };
    let path = folder.join("model.onnx");
    fs::write(&path, model(file).encode_to_vec()).unwrap();
    path
}

fn error(folder: &Path, entries: &[(&str, &str)]) -> String {
    read_model(&write_reference(folder, entries)).unwrap_err().to_string()
}

#[test]
fn a_tensor_is_a_slice_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let values: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    fs::write(folder.path().join("sub/data"), &values).unwrap();
    let entries =
        [("location", "./sub/data"), ("offset", "8"), ("length", "16"), ("checksum", "?")];
    let model = read_model(&write_reference(folder.path(), &entries)).unwrap();
    let tensor = model.graph.constant(model.graph.outputs[0]).unwrap();
    assert_eq!(tensor.to_f32_vec().unwrap(), [2.0, 3.0, 4.0, 5.0]);
    let whole = read_model(&write_reference(folder.path(), &entries[..2])).unwrap();
    assert_same(&model, &whole);
}

#[test]
fn a_path_must_stay_in_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(outer.path().join("secret"), [0; 16]).unwrap();
    let absolute = outer.path().join("secret");
    for location in ["../secret", "a/../../secret", absolute.to_str().unwrap(), "/etc/passwd", ""] {
        let message = error(&folder, &[("location", location)]);
        assert!(message.contains("\"w\"") && message.contains("outside"), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_must_not_lead_out_of_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(outer.path().join("secret"), [0; 16]).unwrap();
    std::os::unix::fs::symlink("../secret", folder.join("data")).unwrap();
    let message = error(&folder, &[("location", "data")]);
    assert!(message.contains("outside"), "{message}");
}

/// Download caches keep all files of a model in one folder and lead there by links.
#[cfg(unix)]
#[test]
fn links_may_lead_to_where_the_model_itself_is() {
    let outer = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (outer.path().join("blobs"), outer.path().join("snapshot"));
    fs::create_dir(&blobs).unwrap();
    fs::create_dir(&snapshot).unwrap();
    write_reference(&blobs, &[("location", "data")]);
    fs::write(blobs.join("blob"), [0; 16]).unwrap();
    std::os::unix::fs::symlink("../blobs/model.onnx", snapshot.join("model.onnx")).unwrap();
    std::os::unix::fs::symlink("../blobs/blob", snapshot.join("data")).unwrap();
    read_model(&snapshot.join("model.onnx")).unwrap();
}

#[test]
fn missing_and_short_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = error(folder.path(), &[("location", "data")]);
    assert!(missing.contains("\"w\"") && missing.contains("data"), "{missing}");
    fs::write(folder.path().join("data"), [0; 20]).unwrap();
    let short = error(folder.path(), &[("location", "data"), ("offset", "8")]);
    for part in ["\"w\"", "16 bytes", "byte 8", "data", "only 20 bytes"] {
        assert!(short.contains(part), "{short}");
    }
    let far = error(folder.path(), &[("location", "data"), ("offset", &u64::MAX.to_string())]);
    assert!(far.contains("only 20 bytes"), "{far}");
    let length = error(folder.path(), &[("location", "data"), ("length", "12")]);
    assert!(length.contains("16 bytes") && length.contains("12"), "{length}");
    let number = error(folder.path(), &[("location", "data"), ("offset", "-1")]);
    assert!(number.contains("offset is \"-1\""), "{number}");
    assert!(error(folder.path(), &[]).contains("no location"));
    let directory = error(folder.path(), &[("location", ".")]);
    assert!(directory.contains("not a regular file"), "{directory}");
    let bytes = fs::read(folder.path().join("model.onnx")).unwrap();
    let folderless = read_model_bytes(bytes.into(), None).unwrap_err().to_string();
    assert!(folderless.contains("without a folder"), "{folderless}");
}

fn beside(min_bytes: usize) -> WriteOptions {
    let external_data = ExternalData::Beside { file_name: "weights".into(), min_bytes };
    WriteOptions { external_data, value_info: ValueInfo::Declared }
}

/// A model that returns its constants.
fn constants(tensors: Vec<Tensor>) -> Model {
    let mut graph = Graph::new("g");
    for tensor in tensors {
        let id = graph.add_constant("w", tensor);
        graph.value_mut(id).ty = ValueType::Unknown;
        graph.outputs.push(id);
    }
    Model { ir_version: 10, graph, ..Model::default() }
}

#[test]
fn shared_bytes_are_written_once_and_offsets_are_aligned() {
    let small = Tensor::from_vec(&[100], vec![1.0f32; 100]);
    let large = Tensor::from_vec(&[1 << 18], vec![2.0f32; 1 << 18]);
    let view = large.reshaped(vec![1 << 9, 1 << 9]).unwrap();
    let tiny = Tensor::scalar(3.0f32);
    let model = constants(vec![small.clone(), large, view, small, tiny]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let report = write_model(&model, &path, &beside(64)).unwrap();
    assert_eq!(report.external_bytes, 4096 + (1 << 20));
    let proto = planish_onnx::proto::ModelProto::decode(fs::read(&path).unwrap().as_slice());
    let offsets: Vec<String> =
        proto.unwrap().graph.unwrap().initializer.iter().map(offset).collect();
    assert_eq!(offsets, ["0", "4096", "4096", "0", "none"]);
    let back = read_model(&path).unwrap();
    for (a, b) in model.graph.outputs.iter().zip(&back.graph.outputs) {
        assert_eq!(model.graph.constant(*a), back.graph.constant(*b));
    }
}

fn offset(tensor: &TensorProto) -> String {
    let entry = tensor.external_data.iter().find(|e| e.key() == "offset");
    entry.map_or("none", |e| e.value()).to_owned()
}

#[test]
fn a_model_may_replace_its_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let model = constants(vec![Tensor::from_vec(&[1000], vec![1.0f32; 1000])]);
    write_model(&model, &path, &beside(0)).unwrap();
    let mut mapped = read_model(&path).unwrap();
    let w = mapped.graph.add_constant("v", Tensor::from_vec(&[500], vec![2.0f32; 500]));
    mapped.graph.outputs.insert(0, w);
    write_model(&mapped, &path, &beside(0)).unwrap();
    write_model(&mapped, &path, &beside(0)).unwrap();
    let back = read_model(&path).unwrap();
    let first = back.graph.constant(back.graph.outputs[1]).unwrap();
    assert_eq!(first.to_f32_vec().unwrap(), vec![1.0; 1000]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    // A folder has the name of the data file.
    fs::create_dir(folder.path().join("weights")).unwrap();
    let model = constants(vec![Tensor::scalar(1.0f32)]);
    let error = write_model(&model, &path, &beside(0)).unwrap_err();
    assert!(error.to_string().contains("weights"), "{error}");
    // A graph that can't be ordered is found after the data file was begun.
    fs::remove_dir(folder.path().join("weights")).unwrap();
    let mut cyclic = model.clone();
    let a = cyclic.graph.new_value("a", ValueType::Unknown);
    let b = cyclic.graph.add_op("b", planish_ir::Node::new("Neg", vec![Some(a)]));
    let back = planish_ir::Node::new("Neg", vec![Some(b)]).with_outputs(vec![Some(a)]);
    cyclic.graph.add_node(back).unwrap();
    assert!(matches!(write_model(&cyclic, &path, &beside(0)), Err(WriteError::Cycle(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn bad_targets_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = constants(vec![]);
    let nowhere = folder.path().join("absent").join("model.onnx");
    let error = write_model(&model, &nowhere, &WriteOptions::default()).unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
    for name in ["../w", "a/b", "", "/w", "model.onnx", ".."] {
        let external_data = ExternalData::Beside { file_name: name.into(), min_bytes: 0 };
        let options = WriteOptions { external_data, value_info: ValueInfo::Declared };
        let error = write_model(&model, &folder.path().join("model.onnx"), &options).unwrap_err();
        assert!(matches!(error, WriteError::FileName(_)), "{name}: {error}");
    }
}

/// Two views of one sparse file, which take no memory, are more than a protobuf file can hold.
#[test]
fn two_gibibytes_need_external_data() {
    let folder = tempfile::tempdir().unwrap();
    let data = fs::File::create(folder.path().join("data")).unwrap();
    data.set_len(1 << 30).unwrap();
    let external = |name: &str| TensorProto {
        data_location: Some(1),
        external_data: vec![StringStringEntryProto {
            key: Some("location".into()),
            value: Some("data".into()),
        }],
        ..tensor(name, 2, &[1 << 30], &[])
    };
    let initializer = vec![external("a"), external("b")];
    let file = GraphProto { initializer, ..graph(&[], vec![], &["a", "b"]) };
    let bytes = model(file).encode_to_vec();
    let model = read_model_bytes(bytes.into(), Some(folder.path())).unwrap();
    let path = folder.path().join("model.onnx");
    let error = write_model(&model, &path, &WriteOptions::default()).unwrap_err();
    assert!(matches!(error, WriteError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("external data"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Weights that were written first stay where they are; the graph says where that is.
#[test]
fn a_view_of_an_existing_file_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    fs::write(folder.path().join("data"), &values).unwrap();
    let entries = [("location", "data"), ("offset", "8"), ("length", "16")];
    let mut model = read_model(&write_reference(folder.path(), &entries)).unwrap();
    let data = bytes::Bytes::from(values);
    let view = Tensor::new(planish_ir::DataType::F32, vec![4], data.slice(8..24)).unwrap();
    let weight = model.graph.outputs[0];
    model.graph.value_mut(weight).constant = Some(view);
    let other = model.graph.add_constant("other", Tensor::from_vec(&[2], vec![1f32, 2.0]));
    model.graph.outputs.push(other);
    let copy = folder.path().join("copy.onnx");
    let options = |file_name: &str| WriteOptions {
        external_data: ExternalData::InPlace { file_name: file_name.into(), data: data.clone() },
        ..WriteOptions::default()
    };
    let report = write_model(&model, &copy, &options("data")).unwrap();
    assert_eq!(report.external_bytes, 24);
    assert!(report.bytes < 200, "{report:?}");
    let read = read_model(&copy).unwrap();
    for id in [weight, other] {
        let name = &model.graph.value(id).name;
        let found = read.graph.constant(read.graph.find_value(name).unwrap());
        assert_eq!(found, model.graph.constant(id), "{name}");
    }
    let refused = write_model(&model, &copy, &options("../data"));
    assert!(matches!(refused, Err(WriteError::FileName(_))));
}
