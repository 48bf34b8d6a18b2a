//! `cargo xtask check`: everything that continuous integration checks, in its order.

mod links;
mod summary;
mod text_rules;
mod tidy;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;
use planish_models::{Exporter, default_cache_dir};

use crate::workspace::cargo;
use crate::{fetch_model, process, python, workspace};

/// Check formatting, lints and house rules, then run all tests.
#[derive(Args)]
pub struct Arguments {
    /// Leave out the tests, and the Python packages and models that they need.
    #[arg(long)]
    no_test: bool,
}

/// Runs the command; stops at the first check that fails.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = workspace::root()?;
    process::run(cargo(&root).args(["fmt", "--all", "--check"]))?;
    process::run(cargo(&root).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    eprintln!("$ tidy");
    tidy::check(&root)?;
    if arguments.no_test { Ok(ExitCode::SUCCESS) } else { test(&root) }
}

/// Runs every test; the last line printed is `N passed, N failed`.
fn test(root: &Path) -> Result<ExitCode> {
    let oracle = python::ensure(root)?;
    let cache = default_cache_dir()?;
    for exporter in Exporter::ALL {
        fetch_model::fetch_shown(exporter, &cache)?;
    }
    let mut tests = cargo(root);
    tests.args(["test", "--workspace", "--no-fail-fast"]);
    with_nvrtc(&mut tests, &python::nvrtc(&oracle)?);
    tests.env("PLANISH_PYTHON_ORACLE", oracle);
    summary::run_tests(&mut tests)
}

/// Lets the tests compile CUDA kernels; from now on they fail if they can't.
fn with_nvrtc(tests: &mut Command, folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    let present = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&present).filter(|path| !path.as_os_str().is_empty()));
    if let Ok(joined) = std::env::join_paths(folders) {
        tests.env("LD_LIBRARY_PATH", joined);
    }
    tests.env("PLANISH_REQUIRE_NVRTC", "1");
}
