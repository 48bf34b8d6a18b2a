//! Writing to stdout and stderr without falling over when nobody reads.
use std::fmt;
use std::io::{ErrorKind, Write};

use anyhow::Context;

/// The reader of stdout is gone, so there is nothing more to do.
#[derive(Debug)]
pub(super) struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stdout was closed")
    }
}

impl std::error::Error for StdoutClosed {}

/// Writes text to stdout at once.
///
/// # Errors
/// [`StdoutClosed`] when the reader is gone.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_to(&mut std::io::stdout().lock(), text)
}

fn print_to(stdout: &mut dyn Write, text: &str) -> anyhow::Result<()> {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        result => result.context("cannot write to stdout"),
    }
}

/// Writes a value to stdout as one line of JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}

/// Writes rows of name and value to stdout, in two columns.
pub(super) fn print_table(rows: &[(&str, String)]) -> anyhow::Result<()> {
    print(&table(rows))
}

fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Writes a line to stderr, if anybody reads it.
pub(super) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A number of bytes in MiB, or "unknown".
pub(super) fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "unknown".to_owned(),
        |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as a pipe without a reader, or as a full disk, does.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_told_from_other_failures() {
        let closed = print_to(&mut Failing(ErrorKind::BrokenPipe), "x").unwrap_err();
        assert!(closed.is::<StdoutClosed>());
        let full = print_to(&mut Failing(ErrorKind::StorageFull), "x").unwrap_err();
        assert!(!full.is::<StdoutClosed>());
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(table(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(mebibytes(Some(1_572_864)), "1.5 MiB");
        assert_eq!(mebibytes(None), "unknown");
    }
}
