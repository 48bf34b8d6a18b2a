//! The text form of real exports, read by ONNX's own parser and by ours.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use planish_ir::text::{PrintOptions, parse, print};
use planish_onnx::read_model;

/// ONNX's parser turns our text into a file that prints as the same text again.
#[test]
fn onnx_parses_what_we_print() {
    let folder = tempfile::tempdir().unwrap();
    let mut texts = Vec::new();
    let mut arguments: Vec<PathBuf> = Vec::new();
    for (i, path) in common::tiny_models().into_iter().enumerate() {
        let text = print(&read_model(&path).unwrap(), &PrintOptions::complete());
        let written = folder.path().join(format!("{i}.txt"));
        std::fs::write(&written, &text).unwrap();
        arguments.extend([written, folder.path().join(format!("{i}.onnx"))]);
        texts.push(text);
    }
    let interpreter = std::env::var("PLANISH_PYTHON_ORACLE").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/parse_text.py");
    let output = Command::new(interpreter).arg(script).args(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (text, files) in texts.iter().zip(arguments.chunks(2)) {
        let model = read_model(&files[1]).unwrap();
        assert_same_text(text, &print(&model, &PrintOptions::complete()));
    }
}

#[test]
fn we_parse_what_we_print() {
    for path in common::tiny_models() {
        let text = print(&read_model(&path).unwrap(), &PrintOptions::complete());
        assert_same_text(&text, &print(&parse(&text).unwrap(), &PrintOptions::complete()));
    }
}

fn assert_same_text(expected: &str, actual: &str) {
    for (left, right) in expected.lines().zip(actual.lines()) {
        assert_eq!(left, right);
    }
    assert_eq!(expected.len(), actual.len());
}
