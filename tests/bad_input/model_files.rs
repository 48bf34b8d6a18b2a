//! Files that are no models, and weights that are not where the model says.
use std::fs;

use planish_onnx::ExternalData;

use crate::support::Bench;

/// Every command that reads a model, up to the model.
const READERS: [&str; 7] = [
    "inspect m",
    "quantize m -o out",
    "run m --prompt w1",
    "eval m --text text.txt --context 32",
    "bench m --prefill 2 --decode 1",
    "forward m --inputs in.npz --outputs out.npz",
    "compare m m --text text.txt --context 32",
];

fn refused_everywhere(bench: &Bench, parts: &[&str]) {
    fs::copy(bench.path("m/expected.npz"), bench.path("in.npz")).unwrap();
    for line in READERS {
        bench.refuses(line, parts);
    }
}

#[test]
fn files_that_are_not_onnx() {
    let bench = Bench::new();
    for contents in ["", "This is a text.", "PK\x03\x04 a zip archive", "\x08\x0a"] {
        bench.write("m/model.onnx", contents);
        bench.refuses("inspect m", &["m/model.onnx is not an ONNX file"]);
        bench.refuses("quantize m/model.onnx -o out", &["m/model.onnx is not an ONNX file"]);
    }
    refused_everywhere(&bench, &["m/model.onnx is not an ONNX file"]);
}

#[test]
fn a_folder_without_a_model() {
    let bench = Bench::new();
    fs::remove_file(bench.path("m/model.onnx")).unwrap();
    refused_everywhere(&bench, &["there is no model at m", "holds no .onnx file"]);
    bench.write("m/a.onnx", "");
    bench.write("m/b.onnx", "");
    refused_everywhere(&bench, &["a.onnx, b.onnx"]);
}

#[test]
fn truncated_files() {
    let bench = Bench::new();
    let whole = fs::read(bench.path("m/model.onnx")).unwrap();
    for cut in [1, 10, whole.len() / 2, whole.len() - 1] {
        bench.write("m/model.onnx", &whole[..cut]);
        bench.refuses("inspect m", &["m/model.onnx is not an ONNX file"]);
        bench.refuses("quantize m -o out", &["m/model.onnx is not an ONNX file"]);
    }
    refused_everywhere(&bench, &["cut short"]);
}

#[test]
fn external_data_that_is_missing() {
    let bench = Bench::with_model("qwen2-genai");
    fs::remove_file(bench.path("m/model.onnx.data")).unwrap();
    refused_everywhere(&bench, &["m/model.onnx: the tensor", "m/model.onnx.data", "No such file"]);
}

#[test]
fn external_data_that_is_too_short() {
    let bench = Bench::with_model("qwen2-genai");
    let whole = fs::read(bench.path("m/model.onnx.data")).unwrap();
    bench.write("m/model.onnx.data", &whole[..1000]);
    refused_everywhere(&bench, &["the tensor", "m/model.onnx.data, which has only 1000 bytes"]);
    bench.write("m/model.onnx.data", "");
    refused_everywhere(&bench, &["the tensor", "m/model.onnx.data"]);
}

/// A model whose weights lie in `m/weights.bin`, and the bytes of its ONNX file.
fn with_external_weights() -> (Bench, Vec<u8>) {
    let bench = Bench::new();
    let file_name = "weights.bin".to_owned();
    bench.edit_with(ExternalData::Beside { file_name, min_bytes: 1024 }, |_| ());
    let bytes = fs::read(bench.path("m/model.onnx")).unwrap();
    (bench, bytes)
}

/// Puts `to` where `from`, as long as it is, stands.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    assert!(at > 0, "nothing was replaced");
    bytes
}

#[test]
fn external_data_outside_of_the_folder() {
    let (bench, bytes) = with_external_weights();
    bench.succeeds("inspect m");
    for location in ["../data.bin", "a/../../w.b", "/etc/passwd"] {
        bench.write("m/model.onnx", replaced(&bytes, "weights.bin", location));
        refused_everywhere(&bench, &["m/model.onnx: the tensor", location, "outside"]);
    }
}

#[cfg(unix)]
#[test]
fn external_data_behind_a_link_out_of_the_folder() {
    let (bench, _) = with_external_weights();
    fs::rename(bench.path("m/weights.bin"), bench.path("weights.bin")).unwrap();
    std::os::unix::fs::symlink("../weights.bin", bench.path("m/weights.bin")).unwrap();
    refused_everywhere(&bench, &["m/model.onnx: the tensor", "weights.bin", "outside"]);
}

#[cfg(unix)]
#[test]
fn external_data_that_is_no_file() {
    let (bench, _) = with_external_weights();
    fs::remove_file(bench.path("m/weights.bin")).unwrap();
    fs::create_dir(bench.path("m/weights.bin")).unwrap();
    refused_everywhere(&bench, &["the tensor", "m/weights.bin", "not a regular file"]);
}
