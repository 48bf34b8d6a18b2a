//! `planish eval`: measure perplexity.
use std::path::PathBuf;
use std::time::Instant;

use planish::app::OpenOptions;
use planish_runtime::evaluate::{EvalOptions, peak_rss_bytes, perplexity};
use serde::Serialize;

use super::Global;
use super::common::{check_length, load_tokenizer, open_checked, tokenize_file};
use super::output::{mebibytes, print_json, print_table};
use super::progress::Bar;

/// Measure the perplexity of a text
///
/// The text's rows are joined with two line ends and tokenised once, without special tokens;
/// windows of --context tokens, tail dropped; exp of the mean over windows of the mean next-token
/// negative log-likelihood. Figures at different contexts cannot be compared.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  planish eval quantized --text wikitext-2/test.raw.txt
  planish eval model.onnx --text wikitext-2/test.raw.txt --context 512 --windows 8 --json")]
pub(super) struct EvalArgs {
    /// The model: a folder with model.onnx, or an .onnx file; tokenizer.json beside it or above
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// The text to predict
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value_t = 2048)]
    context: usize,
    /// Windows to take from the beginning of the text [default: all]
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct EvalReport {
    perplexity: f64,
    n_tokens: usize,
    context: usize,
    windows: usize,
    seconds: f64,
    tokens_per_s: f64,
    weight_bytes: u64,
    cache_bytes: u64,
    peak_rss_bytes: Option<u64>,
}

pub(super) fn execute(args: EvalArgs, global: &Global) -> anyhow::Result<()> {
    let tokenizer = load_tokenizer(&args.model)?;
    let ids = tokenize_file(&args.text, &tokenizer)?;
    let options = global.eval_options(args.context, args.windows);
    check_length(&args.text, &ids, options)?;
    let open = OpenOptions { scores: true, ..global.open_options(1) };
    let mut model = open_checked(&args.model, &open, &tokenizer)?;

    let bar = Bar::new();
    let start = Instant::now();
    let found = perplexity(model.as_mut(), &ids, options, &mut |p| bar.show_evaluation(p))?;
    let seconds = start.elapsed().as_secs_f64();
    drop(bar);
    let windows = found.window_nll.len();
    let memory = model.memory();
    let report = EvalReport {
        perplexity: found.perplexity,
        n_tokens: found.n_tokens,
        context: found.context,
        windows,
        seconds,
        tokens_per_s: (windows * found.context) as f64 / seconds.max(1e-9),
        weight_bytes: memory.weights,
        cache_bytes: memory.cache,
        peak_rss_bytes: peak_rss_bytes(),
    };
    if args.json { print_json(&report) } else { print_table(&rows(&report)) }
}

fn rows(report: &EvalReport) -> Vec<(&'static str, String)> {
    vec![
        ("perplexity", format!("{:.4}", report.perplexity)),
        ("tokens of the text", report.n_tokens.to_string()),
        ("context", report.context.to_string()),
        ("windows", report.windows.to_string()),
        ("time", format!("{:.1} s", report.seconds)),
        ("speed", format!("{:.1} tokens/s", report.tokens_per_s)),
        ("weights", mebibytes(Some(report.weight_bytes))),
        ("KV cache", mebibytes(Some(report.cache_bytes))),
        ("peak memory", mebibytes(report.peak_rss_bytes)),
    ]
}

impl Global {
    /// How to evaluate.
    pub(super) fn eval_options(&self, context: usize, windows: Option<usize>) -> EvalOptions {
        let threads = self.threads.map_or(0, usize::from);
        EvalOptions { context, windows, threads, ..EvalOptions::default() }
    }
}
