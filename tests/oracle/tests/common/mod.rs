//! What the tests against tract share.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

use planish_ir::Model;
use planish_models::{TinyModel, tiny_models};
use planish_onnx::{WriteOptions, write_model};
use planish_oracle::{OracleError, tract_logits};
use planish_runtime::npz::read_npz;

/// Largest difference from ONNX Runtime's logits, relative to the largest of them.
const TOLERANCE: f32 = 1e-4;

/// Logits and their shape.
pub type Logits = (Vec<usize>, Vec<f32>);

/// What ONNX Runtime computed when the model was exported.
pub struct Expected {
    pub ids: Vec<i64>,
    pub logits: Logits,
}

/// The tiny models that everything is tried on; those of other architectures have operators that
/// tract does not know.
pub fn thorough_models() -> Vec<TinyModel> {
    tiny_models().into_iter().filter(TinyModel::is_tried_thoroughly).collect()
}

/// The model's ONNX file.
pub fn file_of(model: &TinyModel) -> PathBuf {
    model.dir.join("model.onnx")
}

/// Reads `expected.npz`.
pub fn expected(model: &TinyModel) -> Expected {
    let arrays = read_npz(&model.dir.join("expected.npz")).unwrap();
    let array = |name| &arrays.iter().find(|(n, _)| n == name).unwrap().1;
    let logits = array("logits");
    Expected {
        ids: array("ids").to_i64().unwrap(),
        logits: (logits.shape.clone(), logits.to_f32().unwrap()),
    }
}

/// tract's logits, or why there are none.
pub fn logits_of(path: &Path, ids: &[i64]) -> Result<Logits, String> {
    match tract_logits(path, ids) {
        Ok(logits) => Ok(logits),
        Err(OracleError::Tract { reason, .. }) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}

/// tract's logits of a model that we write.
pub fn logits_of_written(model: &Model, ids: &[i64]) -> Result<Logits, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    write_model(model, &path, &WriteOptions::default()).unwrap();
    logits_of(&path, ids)
}

/// Panics unless `actual` are ONNX Runtime's logits up to rounding.
pub fn assert_close(name: &str, expected: &Logits, actual: &Logits) {
    assert_eq!(expected.0, actual.0, "{name}: shapes of the logits");
    let largest = expected.1.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (i, (e, a)) in expected.1.iter().zip(&actual.1).enumerate() {
        let is_close = (e - a).abs() <= TOLERANCE * largest;
        assert!(is_close, "{name}: logit {i} is {a}, but ONNX Runtime has {e}");
    }
}

/// Panics unless tract refuses the model `name` and says `reason`.
pub fn assert_refused(name: &str, reason: &str, result: &Result<Logits, String>) {
    match result {
        Ok(_) => panic!("{name}: tract runs it, and must no longer be listed as refusing it"),
        Err(words) => assert!(words.contains(reason), "{name}: tract says: {words}"),
    }
}
