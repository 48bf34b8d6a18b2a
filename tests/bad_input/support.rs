//! A folder with a tiny model, and running the command line in it.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use planish_ir::Model;
use planish_onnx::{ExternalData, WriteOptions, read_model, write_model};

pub use super::words::tokenizer;

/// Vocabulary of the tiny models.
pub const VOCAB: usize = 512;

/// A temporary folder that commands run in, so that all paths are relative.
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// A folder with `m/model.onnx`, `m/tokenizer.json`, and `text.txt` of 2000 tokens.
    pub fn new() -> Self {
        Self::with_model("llama-optimum")
    }

    /// As [`Bench::new`], with another one of the tiny models.
    pub fn with_model(name: &str) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("m")).unwrap();
        for entry in fs::read_dir(tiny(name)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), bench.path("m").join(entry.file_name())).unwrap();
        }
        bench.write("m/tokenizer.json", tokenizer(VOCAB));
        bench.write("text.txt", words(2000));
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    /// Reads `m/model.onnx`, changes it, and writes it back.
    pub fn edit(&self, change: impl FnOnce(&mut Model)) {
        self.edit_with(ExternalData::Inline, change);
    }

    /// As [`Bench::edit`], with weights where `external_data` says.
    pub fn edit_with(&self, external_data: ExternalData, change: impl FnOnce(&mut Model)) {
        let path = self.path("m/model.onnx");
        let mut model = read_model(&path).unwrap();
        change(&mut model);
        write_model(&model, &path, &WriteOptions { external_data, ..Default::default() }).unwrap();
    }

    /// A command line, split at spaces.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
        command.args(line.split(' ')).current_dir(self.folder.path());
        command
    }

    /// Runs a command that must succeed; returns what it prints.
    pub fn succeeds(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {message}");
        assert!(!message.contains(['\r', '\x1b']), "{line} draws on stderr: {message:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must refuse its input with a sentence that contains `parts`, and must
    /// change nothing.
    pub fn refuses(&self, line: &str, parts: &[&str]) {
        let mut command = self.command(line);
        self.refuses_command(&mut command, parts);
    }

    pub fn refuses_command(&self, command: &mut Command, parts: &[&str]) {
        let before = self.list();
        let output = command.output().unwrap();
        let message = one_error(&output, &format!("{command:?}"));
        for part in parts {
            assert!(message.contains(part), "{command:?}: {message:?} does not say {part:?}");
        }
        assert_eq!(before, self.list(), "{command:?} changed the folder");
    }

    /// All files and folders.
    pub fn list(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        list(self.folder.path(), &mut found);
        found
    }
}

/// The one line that a refused command says.
fn one_error(output: &Output, command: &str) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{command}: {message}");
    assert!(output.stdout.is_empty(), "{command} printed to stdout");
    assert!(message.starts_with("error: "), "{command}: {message}");
    assert_eq!(message.lines().count(), 1, "{command}: {message}");
    assert!(!message.contains("panicked"), "{command}: {message}");
    message
}

fn list(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), found);
        }
        found.insert(entry.path());
    }
}

/// The folder of a tiny model.
pub fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny").join(name)
}

/// `n` tokens of the tokenizer.
pub fn words(n: usize) -> String {
    (0..n).map(|i| format!("w{} ", i * 7 % VOCAB)).collect()
}
