//! House rules that no other tool checks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{links, text_rules};

/// Folders that hold the project's Rust code.
const CODE: [&str; 7] = ["src", "passes", "kernels", "runtime", "models", "tests", "benches"];
/// Endings of the files that are read for paths of one machine.
const TEXT: [&str; 6] = ["rs", "md", "toml", "py", "sh", "yml"];
/// Folders whose names begin with a dot but that belong to the project.
const DOTTED: [&str; 3] = [".cargo", ".ci", ".github"];

/// Checks every file of the workspace at `root`; the error lists all findings.
pub fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        if is_text(name) {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            findings.extend(examine(root, name, &text));
        }
    }
    if !findings.is_empty() {
        bail!("tidy: {} finding(s)\n{}", findings.len(), findings.join("\n"));
    }
    Ok(())
}

/// The findings in one file, `name` being relative to `root`, each as `file:line: what`.
fn examine(root: &Path, name: &Path, text: &str) -> Vec<String> {
    let mut found = text_rules::machine_paths(text);
    if has_extension(name, "rs") && CODE.iter().any(|folder| name.starts_with(folder)) {
        found.extend(text_rules::missing_header(text));
        found.extend(text_rules::unfinished(text));
    }
    if has_extension(name, "md") {
        let folder = root.join(name).parent().map(Path::to_owned).unwrap_or_default();
        found.extend(links::broken(text, |target| folder.join(target).exists()));
    }
    let place = |(line, what)| format!("{}:{line}: {what}", name.display());
    found.into_iter().map(place).collect()
}

/// Every file below `folder` but build products and hidden folders.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() {
            files.push(entry.path());
        } else if kind.is_dir() && is_ours(&entry.file_name().to_string_lossy()) {
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}

fn is_ours(folder: &str) -> bool {
    folder != "target" && (!folder.starts_with('.') || DOTTED.contains(&folder))
}

/// Scripts in `.ci` have no ending.
fn is_text(name: &Path) -> bool {
    TEXT.iter().any(|extension| has_extension(name, extension)) || name.starts_with(".ci")
}

fn has_extension(name: &Path, extension: &str) -> bool {
    name.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> String {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        check(root.path()).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_tidy_tree_has_no_findings() {
        let tree = [
            ("src/lib.rs", "//! Sums.\n"),
            ("README.md", "See [the library](src/lib.rs#sums).\n"),
            ("build.rs", "fn main() {}\n"),
        ];
        assert_eq!(findings(&tree), "");
    }

    #[test]
    fn findings_name_file_and_line() {
        let path = ["", "home", "me"].join("/");
        let script = format!("set -e\ncd {path}\n");
        let tree = [
            ("src/lib.rs", "fn main() {}\n"),
            ("docs/guide.md", "\n[gone](absent.md)\n"),
            (".ci/run", script.as_str()),
        ];
        let found = findings(&tree);
        assert!(found.starts_with("tidy: 3 finding(s)"), "{found}");
        for place in ["src/lib.rs:1:", "docs/guide.md:2:", ".ci/run:2:"] {
            assert!(found.contains(place), "{place} in {found}");
        }
    }

    #[test]
    fn build_products_and_hidden_folders_are_passed_over() {
        let tree = [("target/src/a.rs", "x"), (".venv/a.md", "[x](y)"), ("src/a.bin", "x")];
        assert_eq!(findings(&tree), "");
    }

    #[test]
    fn this_workspace_is_tidy_code() {
        let root = crate::workspace::root().unwrap();
        let here = root.join("tests/xtask/src/check/tidy.rs");
        let text = fs::read_to_string(&here).unwrap();
        assert_eq!(examine(&root, here.strip_prefix(&root).unwrap(), &text), [""; 0]);
    }
}
