//! Finding the model that a user means.

use std::path::{Path, PathBuf};

use crate::error::ReadError;

/// Files of folders that hold one decoder in several forms: that which does the work of the others
/// first. The second is needed beside the first.
const FORMS: [(&str, &str); 3] = [
    ("decoder_model_merged.onnx", "decoder_model_merged.onnx"),
    ("decode.onnx", "prefill.onnx"),
    ("decoder_with_past_model.onnx", "decoder_model.onnx"),
];

/// The ONNX file at `path`: `path` itself if it is a file, `model.onnx` if it is a folder that
/// has one, the form with a cache of a decoder in several forms, or the only `.onnx` file of the
/// folder.
///
/// # Errors
/// If there is nothing at `path`, or the folder holds no or several candidates.
pub fn find_model(path: &Path) -> Result<PathBuf, ReadError> {
    let not_found = |reason: String| ReadError::NotFound { path: path.to_owned(), reason };
    let kind = std::fs::metadata(path).map_err(|error| not_found(error.to_string()))?;
    if kind.is_file() {
        return Ok(path.to_owned());
    }
    if !kind.is_dir() {
        return Err(not_found("it is neither a file nor a folder".into()));
    }
    let usual = path.join("model.onnx");
    if usual.is_file() {
        return Ok(usual);
    }
    let is_there = |name: &str| path.join(name).is_file();
    if let Some((name, _)) = FORMS.iter().find(|(name, beside)| is_there(name) && is_there(beside))
    {
        return Ok(path.join(name));
    }
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let mut candidates = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file.extension().is_some_and(|e| e == "onnx") && file.is_file() {
            candidates.push(file);
        }
    }
    candidates.sort();
    match candidates.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(not_found("the folder holds no .onnx file".into())),
        several => Err(not_found(format!("name one of its files: {}", names(several)))),
    }
}

fn names(files: &[PathBuf]) -> String {
    let names = files.iter().filter_map(|f| Some(f.file_name()?.to_string_lossy()));
    names.collect::<Vec<_>>().join(", ")
}
