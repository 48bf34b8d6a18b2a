//! `planish quantize --no-online`: rotations that merge into weights, and none that runs.
use std::path::Path;

use planish::app::{QuantizeRequest, quantize};
use planish_onnx::read_model;
use serde_json::Value;

#[path = "common/mod.rs"]
mod common;
#[path = "common/words.rs"]
mod words;

use common::Recipe;
use planish::app::Method;

/// Quantises a tiny model with merged rotations; returns what the user is told, and the operators.
fn merged(method: Method, name: &str, folder: &Path) -> (Vec<String>, Vec<String>) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny").join(name);
    let source = folder.join("m");
    std::fs::create_dir(&source).unwrap();
    for file in std::fs::read_dir(model).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&file, source.join(file.file_name().unwrap())).unwrap();
    }
    std::fs::write(source.join("tokenizer.json"), words::tokenizer(128)).unwrap();
    let recipe = Recipe::new(method, "w8a8kv8");
    let request = recipe.request(&source, &folder.join("out"));
    let request = QuantizeRequest { no_online: true, ..request };
    let report = quantize(&request, &mut |_| ()).unwrap();
    let graph = read_model(&folder.join("out/model.onnx")).unwrap().graph;
    (report.notes, graph.node_ids().map(|id| graph.node(id).op_type.clone()).collect())
}

/// Mean KL divergence of the quantised model from the original.
fn divergence(folder: &Path) -> f64 {
    let text: String = (0..300).map(|i| format!("w{} ", i * i * 7 % 128)).collect();
    std::fs::write(folder.join("text.txt"), text).unwrap();
    let line = "compare m out --text text.txt --context 32 --json";
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_planish"));
    let output = command.args(line.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["mean_kl"].as_f64().unwrap()
}

#[test]
fn the_residual_stream_is_rotated_and_nothing_runs() {
    for (method, name, is_tied) in [
        (Method::Hadamard, "llama-optimum", false),
        (Method::Orthogonal, "qwen3-dynamo18", true),
        (Method::Hadamard, "qwen2-genai", true),
        (Method::Orthogonal, "granite-genai", true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (notes, operators) = merged(method, name, folder.path());
        // Both tables are codes then: a scale is looked up beside each row.
        let untied = notes.iter().any(|note| note.contains("have a table each"));
        let lookups = operators.iter().filter(|op| *op == "Gather").count();
        assert!(lookups > usize::from(untied), "{name}: {operators:?}");
        assert_eq!(untied, is_tied, "{name}: {notes:?}");
        assert!(!notes.iter().any(|note| note.contains("not rotated")), "{name}: {notes:?}");
        assert!(!operators.iter().any(|op| op.contains("Transform")), "{name}: {operators:?}");
        let divergence = divergence(folder.path());
        assert!((0.0..0.005).contains(&divergence), "{name}: {divergence}");
    }
}

#[test]
fn a_stream_that_cannot_be_rotated_is_left_with_the_reason() {
    for (name, reason) in [
        ("gpt2-optimum", "it is begun by Add"),
        ("gemma2-optimum", "it is written by RMSNormalization"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (notes, operators) = merged(Method::Hadamard, name, folder.path());
        let note = notes.iter().find(|note| note.contains("the residual stream is not rotated: "));
        assert!(note.is_some_and(|note| note.contains(reason)), "{name}: {notes:?}");
        assert!(!operators.iter().any(|op| op.contains("Transform")), "{name}: {operators:?}");
        assert!(divergence(folder.path()) < 0.005, "{name}");
    }
}

#[test]
fn it_is_refused_where_nothing_would_be_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/llama-optimum");
    let request = Recipe::new(Method::Rtn, "w8a8kv8").request(&model, &folder.path().join("out"));
    let error = quantize(&QuantizeRequest { no_online: true, ..request }, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("--no-online is for the methods hadamard"), "{error}");
}
