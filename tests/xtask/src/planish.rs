//! The `planish` binary, built for release, and what it reports.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::process::{read, read_json, run};
use crate::workspace::cargo;

/// The built binary.
#[derive(Debug)]
pub struct Planish {
    path: PathBuf,
    threads: Option<usize>,
}

/// What `planish bench --json` says.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Speed {
    /// Of a prompt, where the last position's logits alone are computed.
    pub prefill_tokens_per_s: f64,
    /// Of a prompt, where all logits are computed; nothing unless asked for.
    pub prefill_all_logits_tokens_per_s: Option<f64>,
    /// Of tokens fed one by one.
    pub decode_tokens_per_s: f64,
    /// The most memory that the process held.
    pub peak_rss_bytes: Option<u64>,
}

/// What `planish eval --json` says.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Evaluation {
    pub perplexity: f64,
}

impl Planish {
    /// Builds the binary of the workspace at `root`; it is to run on `threads` threads, or on one
    /// a core.
    pub fn build(root: &Path, threads: Option<usize>) -> Result<Self> {
        let mut build = cargo(root);
        build.args(["build", "--release", "--package", "planish", "--bin", "planish"]);
        let messages = read(build.arg("--message-format=json-render-diagnostics"))?;
        let path = executable(&String::from_utf8_lossy(&messages), "planish");
        Ok(Self { path: path.context("cargo has built no binary")?, threads })
    }

    /// `planish WORDS…`, on the CPU also where there is a GPU: that is what is measured and shown.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(words).args(["--device", "cpu"]);
        if let Some(threads) = self.threads {
            command.arg("--threads").arg(threads.to_string());
        }
        command
    }

    /// Quantises `model` into the folder `output`, which is removed first.
    pub fn quantize(&self, model: &Path, output: &Path, options: &[&str]) -> Result<()> {
        if output.exists() {
            fs::remove_dir_all(output)
                .with_context(|| format!("cannot remove {}", output.display()))?;
        }
        let mut quantize = self.command(&["quantize"]);
        run(quantize.arg(model).arg("-o").arg(output).args(options))
    }

    /// Measures speed and memory.
    pub fn bench(&self, model: &Path, options: &[&str]) -> Result<Speed> {
        read_json(self.command(&["bench", "--json"]).arg(model).args(options))
    }

    /// Measures perplexity on the first `windows` windows of `context` tokens.
    pub fn eval(
        &self,
        model: &Path,
        text: &Path,
        context: usize,
        windows: usize,
    ) -> Result<Evaluation> {
        let mut eval = self.command(&["eval", "--json"]);
        eval.arg(model).arg("--text").arg(text);
        eval.args(["--context", &context.to_string(), "--windows", &windows.to_string()]);
        read_json(&mut eval)
    }
}

/// The executable of that name that cargo's messages, one JSON object a line, tell of.
pub fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = messages.filter_map(|message| {
        let is_wanted = message["target"]["name"] == name;
        message["executable"].as_str().filter(|_| is_wanted).map(PathBuf::from)
    });
    executables.next_back()
}

/// Bytes of all files in a model's folder that ONNX runtimes read.
pub fn onnx_bytes(folder: &Path) -> Result<u64> {
    let names = ["model.onnx", "model.onnx.data"].map(|name| folder.join(name));
    let sizes = names.iter().map(|path| fs::metadata(path).map(|file| file.len()));
    let total: std::io::Result<u64> = sizes.sum();
    total.with_context(|| format!("cannot read {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"other"},"executable":"target/other"}
{"reason":"compiler-artifact","target":{"name":"planish"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"planish"},"executable":"target/release/planish"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "planish"), Some("target/release/planish".into()));
        assert_eq!(executable("error", "planish"), None);
    }

    #[test]
    fn both_files_of_a_model_count() {
        let folder = tempfile::tempdir().unwrap();
        assert!(onnx_bytes(folder.path()).is_err());
        fs::write(folder.path().join("model.onnx"), "123").unwrap();
        fs::write(folder.path().join("model.onnx.data"), "4567").unwrap();
        assert_eq!(onnx_bytes(folder.path()).unwrap(), 7);
    }

    #[test]
    fn reports_are_read_with_and_without_all_logits() {
        let report = r#"{"prefill_tokens_per_s":1.0,"decode_tokens_per_s":2.0,
                         "peak_rss_bytes":null,"batch":1}"#;
        let speed: Speed = serde_json::from_str(report).unwrap();
        assert_eq!((speed.decode_tokens_per_s, speed.prefill_all_logits_tokens_per_s), (2.0, None));
    }
}
