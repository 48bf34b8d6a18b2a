//! Developer commands: `cargo xtask <command>`.

mod bench;
mod check;
mod compatibility;
mod demo;
mod fetch_model;
mod generate_model;
mod planish;
mod process;
mod python;
mod table;
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
    GenerateModel(generate_model::Arguments),
    Check(check::Arguments),
    Demo(demo::Arguments),
    Bench(bench::Arguments),
    Compatibility(compatibility::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::FetchModel(arguments) => fetch_model::run(&arguments),
        Command::GenerateModel(arguments) => generate_model::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Compatibility(arguments) => compatibility::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
