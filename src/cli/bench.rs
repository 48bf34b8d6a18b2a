//! `planish bench`: measure speed.
use std::num::NonZeroUsize;
use std::path::PathBuf;

use planish::app::open_model;
use planish_runtime::evaluate::{BenchOptions, bench, bench_all_logits, peak_rss_bytes};
use serde::Serialize;

use super::Global;
use super::output::{mebibytes, print_json, print_table};

/// Measure speed and memory
///
/// Feeds random tokens: a prompt at once, then single tokens. Of the prompt only the last
/// position's logits are computed, as for generating text. Speeds are medians of the runs after a
/// warm-up, and count the tokens of all sequences.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  planish bench quantized
  planish bench quantized --prefill 2048 --decode 128 --threads 8 --json")]
pub(super) struct BenchArgs {
    /// The model: a folder with model.onnx, or an .onnx file
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "512")]
    prefill: NonZeroUsize,
    /// Tokens to feed one by one
    #[arg(long, value_name = "N", default_value = "64")]
    decode: NonZeroUsize,
    /// Sequences side by side
    #[arg(long, value_name = "N", default_value = "1")]
    batch: NonZeroUsize,
    /// How often to measure
    #[arg(long, value_name = "N", default_value = "3")]
    repeat: NonZeroUsize,
    /// Measure prompts with the logits of all positions as well
    #[arg(long)]
    all_logits: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct BenchReport {
    prefill_tokens_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_all_logits_tokens_per_s: Option<f64>,
    decode_tokens_per_s: f64,
    peak_rss_bytes: Option<u64>,
    weight_bytes: u64,
    cache_bytes: u64,
    prefill: usize,
    decode: usize,
    batch: usize,
    repeats: usize,
}

pub(super) fn execute(args: BenchArgs, global: &Global) -> anyhow::Result<()> {
    let mut model = open_model(&args.model, &global.open_options(args.batch.get()))?;
    let (prefill, decode) = (args.prefill.get(), args.decode.get());
    let options = BenchOptions { prefill, decode, repeats: args.repeat.get() };
    let speed = bench(model.as_mut(), options)?;
    // Before all logits take memory of their own.
    let peak_rss_bytes = peak_rss_bytes();
    let all_logits = args.all_logits.then(|| bench_all_logits(model.as_mut(), options));
    let report = BenchReport {
        prefill_tokens_per_s: speed.prefill_tokens_per_s,
        prefill_all_logits_tokens_per_s: all_logits.transpose()?,
        decode_tokens_per_s: speed.decode_tokens_per_s,
        peak_rss_bytes,
        weight_bytes: speed.memory.weights,
        cache_bytes: speed.memory.cache,
        prefill,
        decode,
        batch: speed.batch,
        repeats: options.repeats,
    };
    if args.json { print_json(&report) } else { print_table(&rows(&report)) }
}

fn rows(report: &BenchReport) -> Vec<(&'static str, String)> {
    let speed = |speed: f64, tokens: usize| {
        format!("{speed:.1} tokens/s ({} × {tokens} tokens)", report.batch)
    };
    let mut rows = vec![("prefill", speed(report.prefill_tokens_per_s, report.prefill))];
    let all_logits = report.prefill_all_logits_tokens_per_s;
    rows.extend(all_logits.map(|s| ("prefill, all logits", speed(s, report.prefill))));
    rows.extend([
        ("decode", speed(report.decode_tokens_per_s, report.decode)),
        ("weights", mebibytes(Some(report.weight_bytes))),
        ("KV cache", mebibytes(Some(report.cache_bytes))),
        ("peak memory", mebibytes(report.peak_rss_bytes)),
    ]);
    rows
}
