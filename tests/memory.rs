//! How much memory the commands take, with SmolLM2 (538 MB of weights).
//!
//! The limits are on what a process allocates; pages of mapped files, which the system takes back
//! when it needs them, do not count.
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::smollm2;

/// Runs `planish` with a limit for its data, in megabytes.
fn planish(limit: u64, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    let limited = format!("ulimit -d {}; exec \"$0\" \"$@\"", limit * 1_000_000 / 1024);
    command.arg("-c").arg(limited).arg(env!("CARGO_BIN_EXE_planish"));
    let output = command.args(arguments).current_dir(folder).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} with {limit} MB: {message}");
    output
}

/// Weights that do not fit into memory stream through; what comes out runs in less than the file's
/// size and a few buffers.
#[test]
fn a_model_larger_than_its_memory_is_quantised_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let model = smollm2();
    let weights = std::fs::metadata(model.join("model.onnx.data")).unwrap().len();
    assert!(weights > 530_000_000);
    let model = model.display().to_string();
    let options = ["--method", "rtn", "--no-clip-search", "--threads", "2"];
    let quantize = [&["quantize", &model, "-o", "out"], &options[..]].concat();
    planish(300, folder.path(), &quantize);
    let generate = ["run", "out", "--prompt", "One two three", "--max-new-tokens", "3"];
    let output = planish(250, folder.path(), &[&generate, &options[3..]].concat());
    assert!(!output.stdout.is_empty());
    let bench = ["bench", "out", "--prefill", "16", "--decode", "2", "--json"];
    let output = planish(250, folder.path(), &[&bench, &options[3..]].concat());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let peak = report["peak_rss_bytes"].as_u64().unwrap();
    assert!(peak < 250_000_000, "running takes {peak} bytes");
}
