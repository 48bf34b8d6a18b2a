//! ONNX Runtime computes the same from a model and from what we write of it.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use planish_onnx::{ExternalData, ValueInfo, WriteOptions, read_model, write_model};

/// The interpreter with numpy and ONNX Runtime: `PLANISH_PYTHON_ORACLE`, else `python3`.
fn python() -> Command {
    Command::new(std::env::var("PLANISH_PYTHON_ORACLE").unwrap_or_else(|_| "python3".into()))
}

fn assert_same_logits(options: &WriteOptions) {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments: Vec<PathBuf> = Vec::new();
    for (i, path) in common::tiny_models().into_iter().enumerate() {
        let model = read_model(&path).unwrap();
        let copy = folder.path().join(i.to_string()).join("model.onnx");
        std::fs::create_dir(copy.parent().unwrap()).unwrap();
        write_model(&model, &copy, options).unwrap();
        arguments.extend([path, copy]);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/same_logits.py");
    let output = python().arg(script).args(&arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn inline_copies_give_the_same_logits() {
    assert_same_logits(&WriteOptions::default());
}

#[test]
fn copies_with_external_data_give_the_same_logits() {
    let file_name = "model.onnx.data".to_owned();
    let external_data = ExternalData::Beside { file_name, min_bytes: 1024 };
    assert_same_logits(&WriteOptions { external_data, value_info: ValueInfo::All });
}
