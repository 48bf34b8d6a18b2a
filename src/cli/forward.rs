//! `planish forward`: run a graph on given arrays.
use std::path::PathBuf;

use planish::app;
use planish_runtime::npz::{read_npz, write_npz};

use super::Global;
use super::output::print;

/// Run a graph on the arrays of an .npz file
///
/// Arrays are matched with the graph's inputs by name; all outputs are written.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  planish forward model.onnx --inputs in.npz --outputs out.npz")]
pub(super) struct ForwardArgs {
    /// The model: an .onnx file, or a folder with model.onnx
    #[arg(value_name = "MODEL.onnx|DIR")]
    model: PathBuf,
    /// Arrays to feed
    #[arg(long, value_name = "IN.npz")]
    inputs: PathBuf,
    /// The file to write
    #[arg(long, value_name = "OUT.npz")]
    outputs: PathBuf,
}

pub(super) fn execute(args: ForwardArgs, global: &Global) -> anyhow::Result<()> {
    app::check_readable(&args.model)?;
    let inputs = read_npz(&args.inputs)?;
    let outputs = app::forward(&args.model, inputs, &global.open_options(1))?;
    write_npz(&args.outputs, &outputs)?;
    let line = |name: &str, shape: &[usize]| format!("{name}  {shape:?}\n");
    print(&outputs.iter().map(|(name, array)| line(name, &array.shape)).collect::<String>())
}
