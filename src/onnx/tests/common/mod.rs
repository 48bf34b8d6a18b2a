//! What the tests of reading and writing share.

#![allow(dead_code)]

pub mod describe;
pub mod normal;
pub mod proto;

use std::path::{Path, PathBuf};

use planish_ir::Model;
use planish_onnx::{WriteOptions, read_model, write_model};

/// The folder with the exported models.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

/// The tiny models, with all their weights inside.
pub fn tiny_models() -> Vec<PathBuf> {
    folders_with_model(&models().join("tiny"))
}

/// The exports of SmolLM2, whose external data is elsewhere.
pub fn smollm2_models() -> Vec<PathBuf> {
    folders_with_model(&models().join("smollm2"))
}

fn folders_with_model(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let files = entries.map(|e| e.unwrap().path().join("model.onnx"));
    let mut files: Vec<PathBuf> = files.filter(|f| f.is_file()).collect();
    files.sort();
    assert!(!files.is_empty(), "no models in {}", folder.display());
    files
}

/// Writes the model to a fresh folder and reads it back.
pub fn there_and_back(model: &Model, options: &WriteOptions) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    write_model(model, &path, options).unwrap();
    read_model(&path).unwrap()
}
