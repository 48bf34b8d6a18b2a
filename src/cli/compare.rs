//! `planish compare`: how far a model is from a reference.
use std::path::PathBuf;

use planish::app::check_readable;
use planish_runtime::evaluate::{Comparison, compare};
use serde::Serialize;

use super::Global;
use super::common::{check_length, load_tokenizer, open_checked, tokenize_file};
use super::output::{print_json, print_table};
use super::progress::Bar;

/// Compare a model with a reference over a text
///
/// Prints the mean KL divergence of the next-token distributions KL(A ‖ B), how often both models
/// hold the same token likeliest, and the greatest difference of two logits.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  planish compare exported/model.onnx quantized --text wikitext-2/test.raw.txt --windows 4
  planish compare exported/ quantized --text text.txt --context 512 --json")]
pub(super) struct CompareArgs {
    /// The reference: a folder with model.onnx, or an .onnx file; its tokenizer is used for both
    #[arg(value_name = "A")]
    reference: PathBuf,
    /// The model to compare with it
    #[arg(value_name = "B")]
    candidate: PathBuf,
    /// The text to predict
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Windows to take from the beginning of the text [default: all]
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value_t = 2048)]
    context: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct CompareReport {
    mean_kl: f64,
    max_kl: f64,
    top1_agreement: f64,
    max_abs_logit_diff: f64,
    perplexity_a: f64,
    perplexity_b: f64,
    positions: usize,
    windows: usize,
    context: usize,
}

impl From<Comparison> for CompareReport {
    fn from(found: Comparison) -> Self {
        let [perplexity_a, perplexity_b] = found.perplexity;
        Self {
            mean_kl: found.mean_kl,
            max_kl: found.max_kl,
            top1_agreement: found.top1_agreement,
            max_abs_logit_diff: found.max_abs_logit_diff,
            perplexity_a,
            perplexity_b,
            positions: found.positions,
            windows: found.windows,
            context: found.context,
        }
    }
}

pub(super) fn execute(args: CompareArgs, global: &Global) -> anyhow::Result<()> {
    check_readable(&args.candidate)?;
    let tokenizer = load_tokenizer(&args.reference)?;
    let ids = tokenize_file(&args.text, &tokenizer)?;
    let options = global.eval_options(args.context, args.windows);
    check_length(&args.text, &ids, options)?;
    let open = global.open_options(1);
    let mut reference = open_checked(&args.reference, &open, &tokenizer)?;
    let mut candidate = open_checked(&args.candidate, &open, &tokenizer)?;

    let bar = Bar::new();
    let (a, b) = (reference.as_mut(), candidate.as_mut());
    let found = compare(a, b, &ids, options, &mut |p| bar.show_evaluation(p))?;
    drop(bar);
    let report = CompareReport::from(found);
    if args.json { print_json(&report) } else { print_table(&rows(&report)) }
}

fn rows(report: &CompareReport) -> Vec<(&'static str, String)> {
    vec![
        ("mean KL(A ‖ B)", format!("{:.6} nats", report.mean_kl)),
        ("greatest KL", format!("{:.6} nats", report.max_kl)),
        ("same top token", format!("{:.2} %", 100.0 * report.top1_agreement)),
        ("greatest logit difference", format!("{:.6}", report.max_abs_logit_diff)),
        ("perplexity of A", format!("{:.4}", report.perplexity_a)),
        ("perplexity of B", format!("{:.4}", report.perplexity_b)),
        ("windows", format!("{} of {} tokens", report.windows, report.context)),
    ]
}
