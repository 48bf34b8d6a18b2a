//! `planish quantize`: make a quantised model.
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use planish::app::{self, Format, Method, QuantizeReport, QuantizeRequest};
use planish_passes::quantize::BitWidths;

use super::Global;
use super::output::{mebibytes, note, print_table};
use super::progress::Bar;

/// Quantise a model into a new folder
///
/// Reads an exported ONNX language model, flattens outliers, quantises weights, activations and
/// KV cache, and writes model.onnx with its tokenizer and configs into a folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  planish quantize model.onnx -o quantized
  planish quantize exported/ -o quantized --method hadamard --bits w4a4kv4
  planish quantize exported/ -o quantized --method smoothquant --bits w8a8kv8 --calibration text.txt
  planish quantize exported/ -o quantized --bits w4a16kv16 --group-size 128")]
pub(super) struct QuantizeArgs {
    /// The exported model: an .onnx file, or a folder with model.onnx
    #[arg(value_name = "MODEL.onnx|DIR")]
    model: PathBuf,
    /// The folder to write
    #[arg(short, long, value_name = "OUT_DIR")]
    output: PathBuf,
    /// How outliers are flattened
    #[arg(long, value_enum, default_value = "hadamard")]
    method: Method,
    /// Widths of weights, activations and KV cache; 4, 8 or 16 each
    #[arg(long, value_name = "wXaYkvZ", default_value = "w4a4kv4")]
    bits: BitWidths,
    /// Weights that share a scale [default: a whole output channel]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    group_size: Option<u32>,
    /// Text to calibrate with, for the methods that look at activations
    #[arg(long, value_name = "FILE.txt")]
    calibration: Option<PathBuf>,
    /// How the quantised graph is written
    #[arg(long, value_enum, default_value = "fused")]
    format: Format,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Take the full range of the weights instead of searching for the best clipping
    #[arg(long)]
    no_clip_search: bool,
    /// Width of the weights of the last linear layer
    #[arg(long, value_name = "BITS", default_value = "8",
          value_parser = PossibleValuesParser::new(["8", "16", "4"]).try_map(|bits| bits.parse::<u8>()))]
    lm_head_bits: u8,
    /// Write the graph after every pass into this folder
    #[arg(long, value_name = "DIR")]
    dump_ir: Option<PathBuf>,
}

pub(super) fn execute(args: QuantizeArgs, global: &Global) -> anyhow::Result<()> {
    let request = QuantizeRequest {
        model: args.model,
        output: args.output,
        method: args.method,
        bits: args.bits,
        group_size: args.group_size.map(|n| n as usize),
        calibration: args.calibration,
        format: args.format,
        seed: args.seed,
        open: global.open_options(1),
        clip_search: !args.no_clip_search,
        lm_head_bits: args.lm_head_bits,
        dump_ir: args.dump_ir,
    };
    let bar = Bar::new();
    let report =
        app::quantize(&request, &mut |stage| bar.show(stage.name, stage.done, stage.total))?;
    drop(bar);
    report.notes.iter().for_each(|line| note(&format!("note: {line}")));
    print_table(&rows(&report))
}

fn rows(report: &QuantizeReport) -> Vec<(&'static str, String)> {
    let (before, after) = (report.weight_bytes_before, report.weight_bytes_after);
    vec![
        ("written", report.output.display().to_string()),
        ("layers quantised", report.layers.to_string()),
        ("layers left alone", report.layers_left.to_string()),
        ("weights before", mebibytes(Some(before))),
        ("weights after", mebibytes(Some(after))),
        ("time", format!("{:.1} s", report.seconds)),
    ]
}
