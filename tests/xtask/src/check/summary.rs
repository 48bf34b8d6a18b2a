//! Adds up the summaries of the test binaries while their output passes by.

use std::io::{BufRead, BufReader, Read, Write, stdout};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{announce, line};

/// Tests that have passed and failed so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: u64,
    failed: u64,
}

impl Summary {
    /// Adds a line of the form `test result: ok. 3 passed; 0 failed; …`; ignores all others.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<_> = result.split_whitespace().collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed;" => self.passed += count,
                "failed;" => self.failed += count,
                _ => {}
            }
        }
    }
}

/// Runs `cargo test`, passes its output on, and prints the sum of all summaries as the last line.
///
/// The exit code is cargo's verdict; an error means that not even one test could be run.
pub fn run_tests(command: &mut Command) -> Result<ExitCode> {
    announce(command);
    let name = line(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{name}`"))?;
    let mut summary = Summary::default();
    if let Some(output) = child.stdout.take() {
        summary = pass_on(output, &mut stdout())?;
    }
    let status = child.wait()?;
    if summary == Summary::default() {
        bail!("`{name}` ran no test ({status})");
    }
    if !status.success() {
        eprintln!("error: `{name}` failed ({status})");
    }
    println!("{} passed, {} failed", summary.passed, summary.failed);
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Test output need not be UTF-8, so it is passed on as bytes.
fn pass_on(output: impl Read, out: &mut impl Write) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut reader = BufReader::new(output);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        out.write_all(&bytes)?;
        summary.add(&String::from_utf8_lossy(&bytes));
        bytes.clear();
    }
    out.flush()?;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary_of(output: &[u8]) -> Summary {
        let mut passed_on = Vec::new();
        let summary = pass_on(output, &mut passed_on).unwrap();
        assert_eq!(passed_on, output);
        summary
    }

    #[test]
    fn results_of_several_binaries_are_added() {
        let output = b"running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out\n\
            test x ... FAILED\n\
            test result: FAILED. 4 passed; 2 failed; 0 ignored; finished in 0.10s\n";
        assert_eq!(summary_of(output), Summary { passed: 7, failed: 2 });
    }

    #[test]
    fn other_lines_count_for_nothing() {
        let output = b"\xff 5 passed; 5 failed\nour test result: 1 passed; 1 failed";
        assert_eq!(summary_of(output), Summary::default());
    }
}
