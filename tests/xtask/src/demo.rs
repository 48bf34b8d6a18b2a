//! `cargo xtask demo`: a real model before and after quantisation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use planish_models::{Exporter, default_cache_dir};

use crate::planish::{Evaluation, Planish, Speed, onnx_bytes};
use crate::table::{markdown, megabytes};
use crate::{fetch_model, process, workspace};

const TEST_TEXT: &str = "tests/data/wikitext-2/test.raw.txt";
const CALIBRATION_TEXT: &str = "tests/data/wikitext-2/valid.v1.txt";
/// Methods that look at no text.
const WITHOUT_CALIBRATION: [&str; 3] = ["rtn", "hadamard", "orthogonal"];

/// Quantise a real model, let it talk, and compare size, perplexity and speed.
#[derive(Args)]
pub struct Arguments {
    /// Whose graph of SmolLM2-135M-Instruct.
    #[arg(long, value_name = "NAME", default_value_t = Exporter::Optimum)]
    exporter: Exporter,
    /// How outliers are flattened.
    #[arg(long, default_value = "hadamard")]
    method: String,
    /// Widths of weights, activations and KV cache.
    #[arg(long, value_name = "wXaYkvZ", default_value = "w4a4kv4")]
    bits: String,
    /// Windows of text to measure perplexity on.
    #[arg(long, value_name = "N", default_value_t = 2)]
    windows: usize,
    /// Tokens of a window.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    context: usize,
    /// What to ask the model.
    #[arg(long, value_name = "TEXT", default_value = "What is the capital of France?")]
    prompt: String,
    /// Threads [default: one a core].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Folder to keep models in [default: $PLANISH_CACHE, else the user's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Runs the command: text and table on stdout, progress on stderr.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let start = Instant::now();
    let root = workspace::root()?;
    let cache = arguments.cache.clone().map_or_else(default_cache_dir, Ok)?;
    let planish = Planish::build(&root, arguments.threads)?;
    let original = fetch_model::fetch_shown(arguments.exporter, &cache)?;
    let quantized = cache.join("demo").join(name(arguments));
    let calibration = root.join(CALIBRATION_TEXT).display().to_string();
    planish.quantize(&original, &quantized, &options(arguments, &calibration))?;
    for folder in [&original, &quantized] {
        talk(&planish, folder, &arguments.prompt)?;
    }
    let text = root.join(TEST_TEXT);
    let before = Measured::of(&planish, &original, &text, arguments)?;
    let after = Measured::of(&planish, &quantized, &text, arguments)?;
    println!("\n{}", comparison(arguments, &before, &after));
    println!("The quantised model is in {}", quantized.display());
    eprintln!("done in {:.0} s", start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Name of the quantised model's folder.
fn name(arguments: &Arguments) -> String {
    format!("{}-{}-{}", arguments.exporter, arguments.method, arguments.bits)
}

/// What `planish quantize` is told.
fn options<'a>(arguments: &'a Arguments, calibration: &'a str) -> Vec<&'a str> {
    let mut options = vec!["--method", arguments.method.as_str(), "--bits", &arguments.bits];
    if !WITHOUT_CALIBRATION.contains(&arguments.method.as_str()) {
        options.extend(["--calibration", calibration]);
    }
    options
}

/// Lets a model answer `prompt` on stdout.
fn talk(planish: &Planish, model: &Path, prompt: &str) -> Result<()> {
    let mut run = planish.command(&["run", "--chat", "--max-new-tokens", "48"]);
    process::run(run.arg(model).args(["--prompt", prompt]))
}

/// Figures of one model.
struct Measured {
    bytes: u64,
    evaluation: Evaluation,
    speed: Speed,
}

impl Measured {
    fn of(planish: &Planish, model: &Path, text: &Path, arguments: &Arguments) -> Result<Self> {
        Ok(Self {
            bytes: onnx_bytes(model)?,
            evaluation: planish.eval(model, text, arguments.context, arguments.windows)?,
            speed: planish.bench(model, &[])?,
        })
    }

    /// Figures in the order of [`comparison`].
    fn cells(&self) -> [String; 5] {
        let memory = self.speed.peak_rss_bytes.map_or("unknown".to_owned(), megabytes);
        [
            megabytes(self.bytes),
            format!("{:.2}", self.evaluation.perplexity),
            format!("{:.1} tokens/s", self.speed.prefill_tokens_per_s),
            format!("{:.1} tokens/s", self.speed.decode_tokens_per_s),
            memory,
        ]
    }
}

fn comparison(arguments: &Arguments, before: &Measured, after: &Measured) -> String {
    let Arguments { windows, context, exporter, method, bits, .. } = arguments;
    let names = [
        "size on disk".to_owned(),
        format!("perplexity ({windows} windows of {context} tokens)"),
        "prefill (512 tokens)".to_owned(),
        "decoding (64 tokens)".to_owned(),
        "peak memory".to_owned(),
    ];
    let figures = before.cells().into_iter().zip(after.cells());
    let rows =
        names.into_iter().zip(figures).map(|(name, (before, after))| vec![name, before, after]);
    let after = format!("{bits}, {method}");
    markdown(&["SmolLM2-135M-Instruct", &exporter.to_string(), &after], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Arguments {
        Line::parse_from(line.split(' ')).arguments
    }

    #[test]
    fn only_methods_that_calibrate_get_a_text() {
        let plain = parse("demo --method hadamard");
        assert_eq!(options(&plain, "t"), ["--method", "hadamard", "--bits", "w4a4kv4"]);
        let smooth = parse("demo --method smoothquant --bits w8a8kv8 --exporter genai");
        assert_eq!(options(&smooth, "t")[4..], ["--calibration", "t"]);
        assert_eq!(name(&smooth), "genai-smoothquant-w8a8kv8");
    }

    #[test]
    fn the_table_has_both_models() {
        let speed = Speed {
            prefill_tokens_per_s: 1000.04,
            prefill_all_logits_tokens_per_s: None,
            decode_tokens_per_s: 20.0,
            peak_rss_bytes: Some(1_000_000),
        };
        let evaluation = Evaluation { perplexity: 21.291 };
        let model = Measured { bytes: 2_500_000, evaluation, speed };
        let table = comparison(&parse("demo --windows 3"), &model, &model);
        assert!(table.starts_with("| SmolLM2-135M-Instruct "), "{table}");
        assert!(
            table.contains("| perplexity (3 windows of 2048 tokens) |           21.29 |"),
            "{table}"
        );
        assert!(table.contains("1000.0 tokens/s |"), "{table}");
    }
}
