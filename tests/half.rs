//! Models in floats of 16 bits: the same as in 32, up to their precision, with inputs, outputs and
//! weights of 16 bits in what is written.

mod common;

use std::path::{Path, PathBuf};

use common::{LEARNED, Recipe, difference, find, python, tokens};
use half::{bf16, f16};
use planish::app::{Method, OpenOptions, inspect, open_model, quantize};
use planish_ir::{Attribute, DataType, Model, Tensor, ValueType};
use planish_models::{Exporter, TinyModel, tiny_models};
use planish_onnx::{WriteOptions, read_model, write_model};
use planish_runtime::Logits;
use planish_runtime::npz::{read_npz, write_npz};

/// A type, and how far rounding to it may move logits, relative to the largest.
const TYPES: [(DataType, f32); 2] = [(DataType::F16, 5e-3), (DataType::BF16, 5e-2)];

/// The model with all its floats in another type.
fn converted(model: &Model, dtype: DataType) -> Model {
    let mut model = model.clone();
    let graph = &mut model.graph;
    for id in graph.value_ids().collect::<Vec<_>>() {
        let value = graph.value_mut(id);
        if let Some(tensor) = value.constant.as_mut() {
            *tensor = rounded(tensor, dtype);
        }
        match &mut value.ty {
            ValueType::Tensor(ty) if ty.dtype == Some(DataType::F32) => ty.dtype = Some(dtype),
            _ => {}
        }
    }
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node_mut(id);
        let is_cast = node.is("Cast");
        for (name, attribute) in &mut node.attributes {
            match attribute {
                Attribute::Tensor(tensor) => *tensor = rounded(tensor, dtype),
                Attribute::Int(to) if is_cast && name == "to" && *to == 1 => {
                    *to = i64::from(dtype.to_onnx());
                }
                _ => {}
            }
        }
    }
    model
}

/// A tensor of f32 in another type, what is very negative at its lowest number.
fn rounded(tensor: &Tensor, dtype: DataType) -> Tensor {
    if tensor.dtype() != DataType::F32 {
        return tensor.clone();
    }
    let (shape, values) = (tensor.shape(), tensor.to_f32_vec().unwrap().into_iter());
    match dtype {
        DataType::F16 => {
            let lowest = f16::MIN.to_f32();
            let values = values.map(|x| f16::from_f32(if x < -1e30 { lowest } else { x }));
            Tensor::from_vec(shape, values.collect())
        }
        _ => {
            let lowest = bf16::MIN.to_f32();
            let values = values.map(|x| bf16::from_f32(if x < -1e30 { lowest } else { x }));
            Tensor::from_vec(shape, values.collect())
        }
    }
}

/// The tiny model in another type, in a folder of its own.
fn write(tiny: &TinyModel, dtype: DataType, root: &Path) -> PathBuf {
    let folder = root.join(format!("{}-{dtype}", tiny.name));
    std::fs::create_dir(&folder).unwrap();
    let model = converted(&read_model(&tiny.dir.join("model.onnx")).unwrap(), dtype);
    write_model(&model, &folder.join("model.onnx"), &WriteOptions::default()).unwrap();
    folder
}

/// Logits of the tokens of `expected.npz`, prompt and step.
fn logits(folder: &Path, tiny: &TinyModel) -> Vec<f32> {
    let expected = read_npz(&tiny.dir.join("expected.npz")).unwrap();
    let mut model = open_model(folder, &OpenOptions::default()).unwrap();
    let mut logits = Vec::new();
    for name in ["ids", "step_ids"] {
        let ids = tokens(find(&expected, name));
        logits.extend(model.forward(&ids, Logits::All).unwrap().data);
    }
    logits
}

/// Names and types of inputs and outputs.
fn interface(folder: &Path) -> Vec<String> {
    let report = inspect(folder).unwrap();
    let values = report.inputs.iter().chain(&report.outputs);
    values.map(|v| format!("{} {} {:?}", v.name, v.dtype, v.shape)).collect()
}

#[test]
fn tiny_models_are_recognised_and_give_the_same_logits() {
    let root = tempfile::tempdir().unwrap();
    for tiny in tiny_models() {
        let expected = inspect(&tiny.dir).unwrap().recognised.unwrap();
        let reference = logits(&tiny.dir, &tiny);
        let thorough = tiny.is_tried_thoroughly();
        for (dtype, tolerance) in TYPES {
            let name = format!("{} in {dtype}", tiny.name);
            let folder = write(&tiny, dtype, root.path());
            let report = inspect(&folder).unwrap();
            let found = report.recognised.unwrap_or_else(|| panic!("{name}: {:?}", report.notes));
            // Where sites do not follow from each other their order is that of the file.
            let lines = |text: &str| {
                text.lines()
                    .take(if thorough { usize::MAX } else { 1 })
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(lines(&found.text), lines(&expected.text), "{name}");
            assert_eq!(found.tied_head, expected.tied_head, "{name}");
            let difference = difference(&logits(&folder, &tiny), &reference);
            println!("{name}: {difference}");
            assert!(difference < tolerance, "{name}: {difference}");
        }
    }
}

/// Weights in 8 bits hardly differ, whatever they were stored in.
#[test]
fn quantised_models_keep_their_interface() {
    let root = tempfile::tempdir().unwrap();
    for tiny in tiny_models() {
        let folder = write(&tiny, DataType::F16, root.path());
        let original = logits(&folder, &tiny);
        for recipe in
            [Recipe::new(Method::Hadamard, "w8a16kv16"), Recipe::new(Method::Rtn, "w8a8kv8")]
        {
            let output = folder.join(recipe.name());
            recipe.quantize(&folder, &output);
            assert_eq!(interface(&output), interface(&folder), "{} {recipe:?}", tiny.name);
            let difference = difference(&logits(&output, &tiny), &original);
            println!("{} {}: {difference}", tiny.name, recipe.name());
            assert!(difference < 0.05, "{} {recipe:?}: {difference}", tiny.name);
        }
    }
}

/// What is written has products of f32 with weights of 16 bits only where a `Cast` is between.
#[test]
fn onnxruntime_runs_quantised_models_of_16_bits() {
    let root = tempfile::tempdir().unwrap();
    let mut folders = Vec::new();
    for tiny in tiny_models() {
        let folder = write(&tiny, DataType::F16, root.path());
        let output = folder.join("quantized");
        Recipe::new(Method::Rtn, "w8a16kv16").quantize(&folder, &output);
        let expected = read_npz(&tiny.dir.join("expected.npz")).unwrap();
        let ids = ["ids", "step_ids"].map(|n| (n.to_owned(), find(&expected, n).clone()));
        write_npz(&output.join("ids.npz"), &ids).unwrap();
        folders.push((tiny, output));
    }
    let paths: Vec<String> = folders.iter().map(|(_, f)| f.display().to_string()).collect();
    python("codes.py", &paths);
    for (tiny, folder) in &folders {
        let theirs: Vec<f32> = ["prefill", "step"]
            .iter()
            .flat_map(|run| {
                let out = read_npz(&folder.join(format!("{run}.out.npz"))).unwrap();
                find(&out, "logits").to_f32().unwrap()
            })
            .collect();
        let difference = difference(&logits(folder, tiny), &theirs);
        println!("{}: {difference}", tiny.name);
        assert!(difference < 5e-3, "{}: {difference}", tiny.name);
    }
}

#[test]
fn models_of_16_bits_can_be_learned_from() {
    let root = tempfile::tempdir().unwrap();
    let wanted = ["llama-dynamo23", "qwen2-dynamo18"];
    for tiny in tiny_models().into_iter().filter(|tiny| wanted.contains(&tiny.name.as_str())) {
        let folder = write(&tiny, DataType::F16, root.path());
        let output = folder.join("learned");
        LEARNED.quantize(&folder, &output);
        assert_eq!(interface(&output), interface(&folder), "{}", tiny.name);
        assert!(logits(&output, &tiny).iter().all(|x| x.is_finite()), "{}", tiny.name);
    }
}

/// Biases of 16 bits take the shifts of activations in.
#[test]
fn shifts_merge_into_models_of_16_bits() {
    let root = tempfile::tempdir().unwrap();
    let wanted = ["gpt2-optimum", "opt-dynamo18"];
    for tiny in tiny_models().into_iter().filter(|tiny| wanted.contains(&tiny.name.as_str())) {
        let folder = write(&tiny, DataType::F16, root.path());
        let output = folder.join("learned");
        let mut request = Recipe::new(Method::Affinequant, "w8a8kv16").request(&folder, &output);
        // A few steps only spoil weights that are random.
        for (name, value) in [("weight-rate", "0"), ("last-steps", "0")] {
            request.recipe.push((name.to_owned(), value.to_owned()));
        }
        quantize(&request, &mut |_| ()).unwrap();
        assert_eq!(interface(&output), interface(&folder), "{}", tiny.name);
        let difference = difference(&logits(&output, &tiny), &logits(&folder, &tiny));
        println!("{}: {difference}", tiny.name);
        // Clipping has hardly begun to be learned; a bias that is wrong would cost far more.
        assert!(difference < 0.2, "{}: {difference}", tiny.name);
    }
}

/// Exports of models that were in 16 bits before, by the exporter itself (`models/half`), with the type
/// that they end with. Beside them are PyTorch's logits in f32 with their weights.
fn exports() -> Vec<(TinyModel, DataType)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/half");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|dir| {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            let (arch, exporter) = name.rsplit_once('-').unwrap();
            let (exporter, dtype) = match exporter.strip_suffix("bf16") {
                Some(exporter) => (exporter, DataType::BF16),
                None => (exporter.strip_suffix("f16").unwrap(), DataType::F16),
            };
            let (arch, exporter) = (arch.to_owned(), exporter.parse().unwrap());
            (TinyModel { name, arch, exporter, dir }, dtype)
        })
        .collect();
    found.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    found
}

fn expected_logits(tiny: &TinyModel) -> Vec<f32> {
    let expected = read_npz(&tiny.dir.join("expected.npz")).unwrap();
    let of = |name| find(&expected, name).to_f32().unwrap();
    ["logits", "step_logits"].into_iter().flat_map(of).collect()
}

#[test]
fn exports_of_16_bits_are_recognised_and_give_the_logits_of_pytorch() {
    let exports = exports();
    assert_eq!(exports.len(), 8);
    for (tiny, dtype) in exports {
        let report = inspect(&tiny.dir).unwrap();
        if tiny.exporter == Exporter::Genai {
            // Its masks can be computed for a prompt, and for one token behind it, alone.
            assert!(report.notes.is_empty(), "{}: {:?}", tiny.name, report.notes);
        }
        let found =
            report.recognised.unwrap_or_else(|| panic!("{}: {:?}", tiny.name, report.notes));
        assert_eq!((found.blocks, found.sites, found.attentions), (2, 8, 2), "{}", tiny.name);
        let (_, tolerance) = TYPES.into_iter().find(|(other, _)| *other == dtype).unwrap();
        let difference = difference(&logits(&tiny.dir, &tiny), &expected_logits(&tiny));
        println!("{}: {difference}", tiny.name);
        assert!(difference < tolerance, "{}: {difference}", tiny.name);
    }
}

#[test]
fn exports_of_16_bits_are_quantised_and_learned_from() {
    let root = tempfile::tempdir().unwrap();
    for (tiny, _) in exports() {
        let original = logits(&tiny.dir, &tiny);
        for recipe in [Recipe::new(Method::Hadamard, "w8a8kv8"), LEARNED] {
            let output = root.path().join(format!("{}-{}", tiny.name, recipe.name()));
            recipe.quantize(&tiny.dir, &output);
            assert_eq!(interface(&output), interface(&tiny.dir), "{} {recipe:?}", tiny.name);
            let difference = difference(&logits(&output, &tiny), &original);
            println!("{} {}: {difference}", tiny.name, recipe.name());
            let most = if recipe.method.learns() { 0.6 } else { 0.05 };
            assert!(difference < most, "{} {recipe:?}: {difference}", tiny.name);
        }
    }
}
