//! Parsing the command line and running its subcommand.
mod bench;
mod common;
mod compare;
mod eval;
mod exit;
mod forward;
mod inspect;
mod log;
mod output;
mod progress;
mod quantize;
mod report;
mod run;
mod signals;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use planish::app::{Device, FloatType, OpenOptions};

/// Optimises and quantises exported ONNX language models, and runs them.
#[derive(Debug, Parser)]
#[command(name = "planish", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

const EXAMPLES: &str = "\
Examples:
  planish inspect model.onnx
  planish quantize model.onnx -o quantized --bits w4a4kv4 --calibration text.txt
  planish run quantized --chat --prompt \"What is planishing?\"
  planish eval quantized --text wikitext-2/test.raw.txt

Exit codes: 0 success, 1 bad input, 2 wrong usage, 70 a bug in planish.";

/// Options of every subcommand.
#[derive(Debug, Clone, Args)]
struct Global {
    /// Threads to use [default: one a core]
    #[arg(long, global = true, value_name = "N", help_heading = "Global options")]
    threads: Option<NonZeroUsize>,
    /// Where to compute: cpu, cuda or cuda:NUMBER (an NVIDIA GPU), or auto, which takes the GPU
    /// where there is a usable one
    #[arg(
        long,
        global = true,
        value_name = "DEVICE",
        default_value = "auto",
        help_heading = "Global options"
    )]
    device: Device,
    /// How a GPU stores floats
    #[arg(long, global = true, value_enum, default_value = "f16", help_heading = "Global options")]
    float: FloatType,
    /// Say more about what happens; -vv and -vvv say still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
}

impl Global {
    /// How to open a model of `batch` sequences.
    fn open_options(&self, batch: usize) -> OpenOptions {
        OpenOptions {
            device: self.device,
            float: self.float,
            threads: self.threads.map(NonZeroUsize::get),
            batch,
            scores: false,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Quantize(quantize::QuantizeArgs),
    Run(run::RunArgs),
    Eval(eval::EvalArgs),
    Bench(bench::BenchArgs),
    Forward(forward::ForwardArgs),
    Compare(compare::CompareArgs),
    Inspect(inspect::InspectArgs),
    Report(report::ReportArgs),
}

/// Runs the program; wrong usage ends the process with code 2, as clap does it.
pub fn main() -> ExitCode {
    exit::report_panics();
    signals::survive_file_size_limit();
    let Cli { command, global } = Cli::parse();
    log::init(global.verbose);
    exit::code(dispatch(command, &global))
}

fn dispatch(command: Command, global: &Global) -> anyhow::Result<()> {
    match command {
        Command::Quantize(args) => quantize::execute(args, global),
        Command::Run(args) => run::execute(args, global),
        Command::Eval(args) => eval::execute(args, global),
        Command::Bench(args) => bench::execute(args, global),
        Command::Forward(args) => forward::execute(args, global),
        Command::Compare(args) => compare::execute(args, global),
        Command::Inspect(args) => inspect::execute(args),
        Command::Report(args) => report::execute(args, global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_on_either_side() {
        for line in ["planish --threads 3 inspect m", "planish inspect m --threads 3"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.open_options(1).threads, Some(3), "{line}");
        }
    }
}
