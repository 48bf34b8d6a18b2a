//! `planish quantize`: make a quantised model.
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use planish::app::{
    self, CalibrationText, Effort, Format, Method, QuantizeReport, QuantizeRequest, Rounding,
};
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
  planish quantize exported/ -o quantized --bits w4a16kv16 --group-size 128
  planish quantize exported/ -o quantized --method flatquant --calibration text.txt
  planish quantize exported/ -o quantized --method affinequant --bits w4a16 --group-size 32
  planish quantize exported/ -o quantized --method flatquant --effort full --rounding gptq
  planish quantize exported/ -o quantized --format matmulnbits --bits w4a8 --group-size 32")]
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
    /// Widths of weights (2, 3, 4, 8 or 16), activations and KV cache (4, 8 or 16; kv16 if left out)
    /// [default: w4a4kv4, or what the format has of it: w4a16]
    #[arg(long, value_name = "wXaY[kvZ]")]
    bits: Option<BitWidths>,
    /// Weights that share a scale [default: a whole output channel]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    group_size: Option<u32>,
    /// Of hadamard and orthogonal, take only what merges into weights: the residual stream and the
    /// heads of values are rotated, nothing is transformed while the model runs; an embedding that
    /// shares its table with the last layer gets its own
    #[arg(long)]
    no_online: bool,
    /// Text to calibrate with; self: the model writes its own [default of methods that learn: self]
    #[arg(long, value_name = "FILE.txt|self")]
    calibration: Option<String>,
    /// How long a method that learns may take
    #[arg(long, value_enum, default_value = "fast")]
    effort: Effort,
    /// Changes of the effort's recipe, such as steps=300,matrix-rate=0.005
    #[arg(long, value_name = "NAME=VALUE,…", value_delimiter = ',', value_parser = change)]
    recipe: Vec<(String, String)>,
    /// Blocks that learn side by side on the CPU, each on its share of the threads; memory grows with them
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// How weights become codes
    #[arg(long, value_enum, default_value = "nearest")]
    rounding: Rounding,
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
        bits: args.bits.unwrap_or_else(|| args.format.default_bits()),
        group_size: args.group_size.map(|n| n as usize),
        no_online: args.no_online,
        calibration: args.calibration.map(|text| match text.as_str() {
            "self" => CalibrationText::OwnWords,
            path => CalibrationText::File(path.into()),
        }),
        effort: args.effort,
        recipe: args.recipe,
        workers: usize::from(args.workers),
        rounding: args.rounding,
        format: args.format,
        seed: args.seed,
        open: global.open_options(1),
        clip_search: !args.no_clip_search,
        lm_head_bits: args.lm_head_bits,
        dump_ir: args.dump_ir,
    };
    let bar = Bar::new();
    let report = app::quantize(&request, &mut |stage| bar.show_stage(&stage))?;
    drop(bar);
    report.notes.iter().for_each(|line| note(&format!("note: {line}")));
    print_table(&rows(&report))
}

/// Reads NAME=VALUE.
fn change(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a change is written NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
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
