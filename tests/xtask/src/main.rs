//! Developer commands: `cargo xtask <command>`.

mod check;
mod fetch_model;
mod process;
mod python;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands for working on the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    FetchModel(fetch_model::Arguments),
    Check(check::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::FetchModel(arguments) => fetch_model::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
