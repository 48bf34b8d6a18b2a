//! Running other programs where everybody can see it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Prints the command, runs it, and fails unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let line = line(command);
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Prints the command as a shell would show it.
pub fn announce(command: &Command) {
    eprintln!("$ {}", line(command));
}

/// The command's words; of the program only its file name, as one would type it.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = [program].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new(["", "opt", "bin", "cargo"].join("/"));
        assert_eq!(line(command.args(["test", "--workspace"])), "cargo test --workspace");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert_eq!(error, "cannot run `no-such-program`");
    }

    #[cfg(unix)]
    #[test]
    fn a_failing_command_is_named() {
        let error = run(Command::new("false").arg("--quiet")).unwrap_err().to_string();
        assert_eq!(error, "`false --quiet` failed (exit status: 1)");
    }
}
