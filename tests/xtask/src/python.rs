//! The virtual environment that the tests' oracle, ONNX Runtime, runs in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use planish_models::python_interpreter;

use crate::process::run;

const REQUIREMENTS: &str = "tests/requirements.txt";

/// Makes sure of `.venv` in the workspace `root` with the pinned packages; returns its Python.
pub fn ensure(root: &Path) -> Result<PathBuf> {
    let requirements = root.join(REQUIREMENTS);
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let venv = root.join(".venv");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // A copy of the requirements that were installed last; written only after success.
    let stamp = venv.join("requirements.txt");
    if python.exists() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    create(&venv, &python, &requirements)?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

/// The folder of the compiler for CUDA kernels among the packages of the environment `python`.
pub fn nvrtc(python: &Path) -> Result<PathBuf> {
    let program = "import nvidia, pathlib\n\
        for root in nvidia.__path__:\n\
        \x20   for file in sorted(pathlib.Path(root).rglob('libnvrtc.so*')):\n\
        \x20       print(file.parent)\n";
    let found = Command::new(python).args(["-c", program]).output();
    let found = found.with_context(|| format!("cannot run {}", python.display()))?;
    let lines = String::from_utf8_lossy(&found.stdout);
    let first = lines.lines().next().context("NVRTC is not among the Python packages")?;
    Ok(PathBuf::from(first))
}

/// The interpreter's own pip installs into the environment, which so needs none: some systems
/// package `ensurepip` apart.
fn create(venv: &Path, python: &Path, requirements: &Path) -> Result<()> {
    let interpreter = python_interpreter();
    let mut create = Command::new(&interpreter);
    run(create.args(["-m", "venv", "--clear", "--without-pip"]).arg(venv))?;
    let mut install = Command::new(&interpreter);
    install.args(["-m", "pip", "--disable-pip-version-check", "--python"]).arg(python);
    install.args(["install", "--quiet", "--requirement"]).arg(requirements);
    run(&mut install)
}
