//! `cargo xtask generate-model`: a model of a known shape with random weights.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use planish_models::Progress;
use planish_models::synthetic::{FloatType, LlamaShape, generate};

/// Write a model of a known shape with random weights, for measuring speed and memory; prints its
/// folder.
#[derive(Args)]
pub struct Arguments {
    /// The shape.
    #[arg(value_enum)]
    model: Model,
    /// Blocks, instead of as many as the model has.
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// How floats are stored.
    #[arg(long, value_enum, default_value_t = Dtype::F16)]
    dtype: Dtype,
    /// Of the random weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder to write, which must not exist.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// Llama-3-8B: 16 GB in f16.
    #[value(name = "llama3-8b")]
    Llama3_8b,
    /// Two blocks of the same kind, under a megabyte.
    LlamaTiny,
}

impl Model {
    fn shape(self) -> LlamaShape {
        match self {
            Self::Llama3_8b => LlamaShape::LLAMA_3_8B,
            Self::LlamaTiny => LlamaShape::TINY,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    F16,
    F32,
}

impl Dtype {
    fn float_type(self) -> FloatType {
        match self {
            Self::F16 => FloatType::F16,
            Self::F32 => FloatType::F32,
        }
    }
}

/// Runs the command: the folder on stdout, progress on stderr.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut shape = arguments.model.shape();
    shape.layers = arguments.layers.unwrap_or(shape.layers);
    let (dtype, output) = (arguments.dtype.float_type(), &arguments.output);
    let live = stderr().is_terminal();
    let mut shown = None;
    generate(&shape, dtype, arguments.seed, output, &mut |progress| {
        let Progress::Generating { done, total } = progress else { return };
        let percent = done * 100 / total.max(1);
        if live && shown.replace(percent) != Some(percent) {
            eprint!("\rwriting {} MB of weights {percent} %", total / 1_000_000);
        }
    })
    .context("cannot generate the model")?;
    if live {
        eprintln!();
    }
    println!("{}", output.display());
    Ok(ExitCode::SUCCESS)
}
