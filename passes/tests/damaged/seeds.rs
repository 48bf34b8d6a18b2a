//! Models to begin with: the graphs of the rules' cases, and the tiny exports.

use std::path::Path;

use bytes::Bytes;
use planish_ir::text::parse;
use planish_onnx::proto::tensor_proto::DataLocation;
use planish_onnx::proto::{ModelProto, StringStringEntryProto, TensorProto};
use planish_onnx::{WriteOptions, write_model};
use prost::Message;

use crate::case;
use crate::weights;

/// Where large weights are said to lie: zeros, which take no room in any seed.
const WEIGHTS: &str = "weights.bin";
/// Bytes of that file; more than the largest weight of the tiny exports.
const WEIGHT_BYTES: u64 = 1 << 20;
/// Bytes from which on a weight is large.
const LARGE: usize = 512;

/// Writes the file that large weights of all seeds lie in.
pub fn write_weights(folder: &Path) {
    let file = std::fs::File::create(folder.join(WEIGHTS)).expect("a writable folder");
    file.set_len(WEIGHT_BYTES).expect("a sparse file");
}

/// Every seed with its name.
pub fn seeds() -> Vec<(String, ModelProto)> {
    let mut seeds = from_cases();
    for tiny in planish_models::tiny_models() {
        let bytes = std::fs::read(tiny.dir.join("model.onnx")).expect("a tiny model");
        let mut model = ModelProto::decode(bytes.as_slice()).expect("an ONNX file");
        model.graph.iter_mut().flat_map(|g| &mut g.initializer).for_each(move_out);
        seeds.push((tiny.name, model));
    }
    seeds
}

fn from_cases() -> Vec<(String, ModelProto)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../passes/tests/rules");
    let target = tempfile::tempdir().expect("a folder");
    let path = target.path().join("model.onnx");
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the cases of the rules") {
        let file = entry.expect("an entry").path();
        if file.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let family = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("a text");
        for (i, case) in case::read(&text).into_iter().enumerate() {
            let mut model = parse(&weights::fill(&case.before)).expect("a graph");
            if model.opset_imports.is_empty() {
                model.set_opset("", 18);
                model.set_opset("com.microsoft", 1);
            }
            model.ir_version = 10;
            write_model(&model, &path, &WriteOptions::default()).expect("a written model");
            let bytes = std::fs::read(&path).expect("what was written");
            let model = ModelProto::decode(bytes.as_slice()).expect("an ONNX file");
            seeds.push((format!("{family}-{i}"), model));
        }
    }
    seeds
}

/// Moves the data of a large tensor to the file of zeros.
fn move_out(tensor: &mut TensorProto) {
    let is_external = tensor.data_location() == DataLocation::External;
    let is_large = tensor.raw_data.as_ref().is_some_and(|raw| raw.len() >= LARGE);
    if !is_external && !is_large {
        return;
    }
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    tensor.raw_data = None::<Bytes>;
    tensor.external_data = vec![entry("location", WEIGHTS), entry("offset", "0")];
    tensor.data_location = Some(DataLocation::External as i32);
}
