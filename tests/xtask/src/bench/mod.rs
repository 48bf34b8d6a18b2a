//! `cargo xtask bench`: our engine's speed beside ONNX Runtime's.

mod machine;
mod prepare;
mod report;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use planish_models::default_cache_dir;
use serde::Deserialize;

use crate::{process, workspace};
use machine::Machine;
use prepare::Prepared;
use report::{Comparison, Figures, Report};

/// Tokens of the prompt.
const PREFILL: usize = 512;
/// Tokens fed one by one after it.
const DECODE: usize = 64;

/// Compare our speed with ONNX Runtime's in one run; takes minutes on an idle machine.
#[derive(Args)]
pub struct Arguments {
    /// Print JSON instead of Markdown.
    #[arg(long)]
    json: bool,
    /// Threads of either engine.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Rounds; in each one every contestant runs once, and the median counts.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    repeat: usize,
    /// Folder to keep models in [default: $PLANISH_CACHE, else the user's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Runs the command: the table or JSON on stdout, progress on stderr.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = workspace::root()?;
    let cache = arguments.cache.clone().map_or_else(default_cache_dir, Ok)?;
    let prepared = Prepared::new(&root, &cache, arguments.threads)?;
    let machine = Machine::new();
    let mut floats = Comparison::new("f32", "the export by optimum", "the same export");
    let mut codes = Comparison::new(
        "4 bits",
        "the export by onnxruntime-genai, its own int4 quantiser (block 32, int8 activations)",
        "w4a4kv4 by hadamard, from the export by optimum",
    );
    let mut version = String::new();
    for round in 1..=arguments.repeat {
        eprintln!("round {round} of {}", arguments.repeat);
        let pairs = [
            (&mut floats, &prepared.float, &prepared.float),
            (&mut codes, &prepared.rival_int4, &prepared.quantized),
        ];
        for (comparison, rival, ours) in pairs {
            let mut command = rival_command(&prepared, rival, arguments.threads);
            let speed: RivalSpeed = process::read_json(&mut command)?;
            version = speed.onnxruntime.clone();
            comparison.rival.push(speed.into());
            comparison.ours.push(our_figures(&prepared, ours)?);
        }
    }
    let report = Report::new(machine, version, arguments.threads, &[floats, codes]);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.markdown());
    }
    Ok(ExitCode::SUCCESS)
}

/// What `benches/ort_speed.py` says. Its graphs compute the logits of every position.
#[derive(Deserialize)]
struct RivalSpeed {
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    peak_rss_bytes: u64,
    onnxruntime: String,
}

impl From<RivalSpeed> for Figures {
    fn from(speed: RivalSpeed) -> Self {
        Self {
            prefill_all_logits: speed.prefill_tokens_per_s,
            prefill_last_logits: None,
            decode: speed.decode_tokens_per_s,
            peak_bytes: Some(speed.peak_rss_bytes),
        }
    }
}

fn rival_command(prepared: &Prepared, model: &Path, threads: usize) -> Command {
    let mut command = Command::new(&prepared.python);
    command.arg(prepared.script("ort_speed.py")).arg(model.join("model.onnx"));
    command.args(["--prefill", &PREFILL.to_string(), "--decode", &DECODE.to_string()]);
    command.args(["--threads", &threads.to_string(), "--repeat", "1"]);
    command
}

fn our_figures(prepared: &Prepared, model: &Path) -> Result<Figures> {
    let (prefill, decode) = (PREFILL.to_string(), DECODE.to_string());
    let options = ["--prefill", &prefill, "--decode", &decode, "--repeat", "1", "--all-logits"];
    let speed = prepared.planish.bench(model, &options)?;
    Ok(Figures {
        prefill_all_logits: speed
            .prefill_all_logits_tokens_per_s
            .context("planish bench left out the speed with all logits")?,
        prefill_last_logits: Some(speed.prefill_tokens_per_s),
        decode: speed.decode_tokens_per_s,
        peak_bytes: speed.peak_rss_bytes,
    })
}
