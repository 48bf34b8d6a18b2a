//! `cargo xtask compatibility`: which runtimes run what planish reads and writes, measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use planish_models::{Exporter, default_cache_dir, tiny_models};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::planish::executable;
use crate::{fetch_model, process, python, table, workspace};

/// The consumers, as the columns of the table.
const CONSUMERS: [(&str, &str); 6] = [
    ("planish", "planish, CPU"),
    (CUDA, "planish, CUDA"),
    ("onnxruntime", "onnxruntime"),
    ("onnxruntime plain", "the same, optimisations off"),
    ("onnxruntime-genai", "onnxruntime-genai"),
    ("tract", "tract"),
];
const CUDA: &str = "planish cuda";
const ROWS: &str = "target/compatibility.jsonl";
const TARGET: &str = "docs/compatibility.md";

/// Measure which runtimes run what planish reads and writes; writes docs/compatibility.md.
#[derive(Args)]
pub struct Arguments {
    /// Measure the four exports of SmolLM2-135M too (downloads them, takes minutes).
    #[arg(long)]
    smollm2: bool,
    /// What `tests/python/compatibility.py --cuda FILE` measured on a machine with a GPU.
    #[arg(long, value_name = "FILE")]
    cuda: Option<PathBuf>,
    /// Measure nothing: take the rows that the last run left in target/compatibility.jsonl.
    #[arg(long, conflicts_with = "smollm2")]
    measured: bool,
    /// Folder to keep models in [default: $PLANISH_CACHE, else the user's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// What was measured of a model in one format.
#[derive(Debug, Deserialize)]
struct Row {
    model: String,
    format: String,
    cells: Map<String, Value>,
}

/// What was measured of our engine for CUDA.
#[derive(Debug)]
struct OnCuda {
    head: CudaHead,
    rows: Vec<Row>,
}

/// The first line of what was measured on a GPU.
#[derive(Debug, Deserialize)]
struct CudaHead {
    card: String,
    date: String,
}

/// Runs the command: the table into the documentation, progress on stderr.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = workspace::root()?;
    let cuda = arguments.cuda.as_deref().map(read_cuda).transpose()?;
    let rows = root.join(ROWS);
    let failed = || format!("cannot use {}", rows.display());
    if !arguments.measured {
        fs::create_dir_all(root.join("target")).with_context(failed)?;
        fs::write(&rows, measure(arguments, &root)?).with_context(failed)?;
    }
    let lines = fs::read_to_string(&rows).with_context(failed)?;
    let text = document(&read_rows(&lines)?, cuda.as_ref());
    let target = root.join(TARGET);
    fs::write(&target, text).with_context(|| format!("cannot write {}", target.display()))?;
    eprintln!("written: {TARGET}");
    Ok(ExitCode::SUCCESS)
}

fn read_rows(lines: &str) -> Result<Vec<Row>> {
    let rows: Result<Vec<Row>, _> = lines.lines().map(serde_json::from_str).collect();
    rows.context("the measurements can't be read")
}

fn read_cuda(path: &Path) -> Result<OnCuda> {
    let failed = || format!("cannot read {}", path.display());
    let text = fs::read_to_string(path).with_context(failed)?;
    let (head, rows) = text.split_once('\n').unwrap_or((&text, ""));
    let head = serde_json::from_str(head).with_context(failed)?;
    Ok(OnCuda { head, rows: read_rows(rows).with_context(failed)? })
}

/// The lines that the script writes.
fn measure(arguments: &Arguments, root: &Path) -> Result<Vec<u8>> {
    let python = python::ensure(root)?;
    let planish = ["--release", "--package", "planish", "--bin", "planish"];
    let planish = build(root, &planish, "planish")?;
    // With the features that tests of the whole workspace build it with.
    let oracle = ["--workspace", "--example", "tract_logits"];
    let tract = build(root, &oracle, "tract_logits")?;
    let mut folders: Vec<PathBuf> = tiny_models().into_iter().map(|tiny| tiny.dir).collect();
    if arguments.smollm2 {
        let cache = arguments.cache.clone().map_or_else(default_cache_dir, Ok)?;
        folders.extend(smollm2(root, &cache)?);
    }
    let mut measure = Command::new(python);
    measure.arg(root.join("tests/python/compatibility.py")).args([planish, tract]).args(folders);
    process::read(&mut measure)
}

/// Builds one program of the workspace; returns its path.
fn build(root: &Path, target: &[&str], name: &str) -> Result<PathBuf> {
    let mut build = workspace::cargo(root);
    build.arg("build").args(target).arg("--message-format=json-render-diagnostics");
    let messages = process::read(&mut build)?;
    let path = executable(&String::from_utf8_lossy(&messages), name);
    path.with_context(|| format!("cargo has not built {name}"))
}

/// Folders with the exports of SmolLM2, called after architecture and exporter as the tiny ones,
/// each with the logits that it is to give.
fn smollm2(root: &Path, cache: &Path) -> Result<Vec<PathBuf>> {
    let expected = root.join("models/smollm2/expected.npz");
    let make = |exporter: &Exporter| {
        let source = fetch_model::fetch_shown(*exporter, cache)?;
        let folder = cache.join("compatibility").join(format!("smollm2-{exporter}"));
        let failed = || format!("cannot fill {}", folder.display());
        fs::create_dir_all(&folder).with_context(failed)?;
        for entry in fs::read_dir(&source).with_context(failed)? {
            let from = entry.with_context(failed)?.path();
            let to = folder.join(from.file_name().unwrap_or_default());
            if !to.exists() && fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).with_context(failed)?;
            }
        }
        fs::copy(&expected, folder.join("expected.npz")).with_context(failed)?;
        Ok(folder)
    };
    Exporter::ALL.iter().map(make).collect()
}

/// The page; without what was measured on a GPU there is no column for it.
fn document(rows: &[Row], cuda: Option<&OnCuda>) -> String {
    let consumers = CONSUMERS.iter().filter(|(key, _)| *key != CUDA || cuda.is_some());
    let header = ["architecture, exporter", "format"].into_iter();
    let header: Vec<&str> = header.chain(consumers.clone().map(|(_, title)| *title)).collect();
    let cells = |row: &Row| {
        let is_same = |other: &&Row| (&other.model, &other.format) == (&row.model, &row.format);
        let on_cuda = cuda.and_then(|cuda| cuda.rows.iter().find(is_same));
        let (architecture, exporter) = row.model.rsplit_once('-').unwrap_or((&row.model, ""));
        let mut line = vec![format!("{architecture}, {exporter}"), row.format.clone()];
        let cell = |key: &str| {
            let row = if key == CUDA { on_cuda } else { Some(row) };
            row.and_then(|row| row.cells.get(key)?.as_str()).unwrap_or("").to_owned()
        };
        line.extend(consumers.clone().map(|(key, _)| cell(key)));
        line
    };
    let lines: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let on_cuda = cuda.map_or(String::new(), |OnCuda { head: CudaHead { card, date }, .. }| {
        format!(
            "- *planish, CUDA*: the same of our engine on one {card}, which stores floats as f16, \
             measured on {date}.\n"
        )
    });
    let introduction = INTRODUCTION.replace("{cuda}", &on_cuda);
    format!("{introduction}\n{}", table::markdown(&header, &lines))
}

const INTRODUCTION: &str = "\
# What runs where

Written by `cargo xtask compatibility` from what it measured; not edited by hand.

Rows: the models under `models/tiny` (random weights; `--smollm2` adds the real one's exports), as exported and as written
by `planish quantize` in each format (`--method` as by default, but `rtn` for w8a8kv8).
Cells are measured on the prompt in `expected.npz`:

- *planish, CPU*: the largest difference of our logits from those of the export in ONNX Runtime when it was made, relative
  to the largest logit. For quantised formats that is the error of quantisation, large for random weights.
{cuda}- *onnxruntime*, *tract*: the largest difference of their logits from ours on the same file. Rounding of
  activations to few bits (w4a4, w8a8; w4a8 inside ONNX Runtime's products) makes it large where a code falls to the other side.
- *onnxruntime-genai*: how many of the greedy tokens are those of onnxruntime on the same file.
- *no: …*: what the runtime said instead. Empty: not tried, as the format is not for it.
";

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"model": "gpt2-dynamo18", "format": "qdq w4a16", "cells": {"planish": "1.0e-1", "tract": "no: reason"}}
{"model": "gpt2-dynamo18", "format": "as exported", "cells": {"planish": "2.0e-7"}}"#;

    /// The cells of the last two lines.
    fn cells(text: &str) -> Vec<Vec<&str>> {
        let rows = text.lines().map(|row| row.trim_matches('|').split('|').map(str::trim));
        let rows: Vec<Vec<&str>> = rows.map(Iterator::collect).collect();
        rows[rows.len() - 2..].to_vec()
    }

    #[test]
    fn every_measured_cell_is_in_the_table() {
        let text = document(&read_rows(LINES).unwrap(), None);
        assert!(!text.contains("CUDA") && !text.contains("{cuda}"), "{text}");
        let expected = [
            ["gpt2, dynamo18", "qdq w4a16", "1.0e-1", "", "", "", "no: reason"],
            ["gpt2, dynamo18", "as exported", "2.0e-7", "", "", "", ""],
        ];
        assert_eq!(cells(&text), expected);
    }

    #[test]
    fn what_was_measured_on_a_gpu_has_a_column() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cuda.jsonl");
        let lines = [
            r#"{"card": "NVIDIA H100", "date": "2026-01-31"}"#,
            r#"{"model": "gpt2-dynamo18", "format": "as exported", "cells": {"planish cuda": "3.0e-4"}}"#,
            r#"{"model": "gpt2-optimum", "format": "qdq w4a16", "cells": {"planish cuda": "4.0e-4"}}"#,
        ];
        fs::write(&file, lines.join("\n")).unwrap();
        let text = document(&read_rows(LINES).unwrap(), Some(&read_cuda(&file).unwrap()));
        assert!(text.contains("on one NVIDIA H100, "), "{text}");
        assert!(text.contains("measured on 2026-01-31.\n- *onnxruntime*"), "{text}");
        let expected = [
            ["gpt2, dynamo18", "qdq w4a16", "1.0e-1", "", "", "", "", "no: reason"],
            ["gpt2, dynamo18", "as exported", "2.0e-7", "3.0e-4", "", "", "", ""],
        ];
        assert_eq!(cells(&text), expected);
        fs::write(&file, "").unwrap();
        let error = format!("{:#}", read_cuda(&file).unwrap_err());
        assert!(error.starts_with("cannot read "), "{error}");
    }
}
