//! `planish report`: a page about a quantised model.
use std::path::PathBuf;

use planish::app::{self, ReportRequest};

use super::Global;
use super::output::print;
use super::progress::Bar;

/// Write a page about a quantised model
///
/// One HTML file with plots: flatness of weights and activations before and after, quantisation
/// error, loss curves, clipping ratios, size and speed. It needs no network.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  planish report quantized
  planish report quantized -o page.html --text text.txt --bench
  planish report quantized --source exported/model.onnx")]
pub(super) struct ReportArgs {
    /// The folder that planish quantize wrote
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE.html", default_value = "report.html")]
    output: PathBuf,
    /// The original model [default: the one that planish.json names]
    #[arg(long, value_name = "MODEL.onnx|DIR")]
    source: Option<PathBuf>,
    /// Text to run through both models [default: the original model writes it]
    #[arg(long, value_name = "FILE.txt")]
    text: Option<PathBuf>,
    /// Measure speed as well
    #[arg(long)]
    bench: bool,
}

pub(super) fn execute(args: ReportArgs, global: &Global) -> anyhow::Result<()> {
    let request = ReportRequest {
        model: args.model,
        output: args.output,
        source: args.source,
        text: args.text,
        bench: args.bench,
        open: global.open_options(1),
    };
    let bar = Bar::new();
    app::report(&request, &mut |stage| bar.show_stage(&stage))?;
    drop(bar);
    print(&format!("written  {}\n", request.output.display()))
}
