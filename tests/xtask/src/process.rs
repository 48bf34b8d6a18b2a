//! Running other programs where everybody can see it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

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

/// Prints the command, runs it, and returns what it writes to stdout; fails unless it succeeds.
pub fn read(command: &mut Command) -> Result<Vec<u8>> {
    announce(command);
    let line = line(command);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    Ok(output.stdout)
}

/// As [`read`], for a command that writes one JSON value.
pub fn read_json<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let bytes = read(command)?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("`{}` did not write what it should", line(command)))
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
    fn output_is_read_as_json() {
        let numbers: Vec<u8> = read_json(Command::new("echo").arg("[1, 2]")).unwrap();
        assert_eq!(numbers, [1, 2]);
        let error = read_json::<Vec<u8>>(Command::new("echo").arg("1 2")).unwrap_err().to_string();
        assert_eq!(error, "`echo 1 2` did not write what it should");
        let error = read(&mut Command::new("false")).unwrap_err().to_string();
        assert_eq!(error, "`false` failed (exit status: 1)");
    }

    #[cfg(unix)]
    #[test]
    fn a_failing_command_is_named() {
        let error = run(Command::new("false").arg("--quiet")).unwrap_err().to_string();
        assert_eq!(error, "`false --quiet` failed (exit status: 1)");
    }
}
