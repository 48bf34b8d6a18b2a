//! The models that are measured, and the programs that measure them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use planish_models::Exporter;

use crate::planish::Planish;
use crate::{fetch_model, process, python};

/// What a comparison needs. Models are folders with `model.onnx`.
pub struct Prepared {
    pub planish: Planish,
    pub python: PathBuf,
    /// The export by optimum, in f32.
    pub float: PathBuf,
    /// Ours made of that, W4A4KV4 by Hadamard rotations.
    pub quantized: PathBuf,
    /// ONNX Runtime's own int4 model of the export by its sister project genai.
    pub rival_int4: PathBuf,
    scripts: PathBuf,
}

impl Prepared {
    /// Builds, downloads and quantises what is not in the folder `cache`; ours is made anew.
    pub fn new(root: &Path, cache: &Path, threads: usize) -> Result<Self> {
        let planish = Planish::build(root, Some(threads))?;
        let python = python::ensure(root)?;
        let scripts = root.join("benches");
        let float = fetch_model::fetch_shown(Exporter::Optimum, cache)?;
        let quantized = cache.join("bench/w4a4kv4");
        planish.quantize(&float, &quantized, &["--method", "hadamard", "--bits", "w4a4kv4"])?;
        let genai = fetch_model::fetch_shown(Exporter::Genai, cache)?;
        let rival_int4 = cache.join("bench/onnxruntime-int4");
        make_rival(&python, &scripts.join("ort_int4.py"), &genai, &rival_int4)?;
        Ok(Self { planish, python, float, quantized, rival_int4, scripts })
    }

    /// A script of the folder `benches`.
    pub fn script(&self, name: &str) -> PathBuf {
        self.scripts.join(name)
    }
}

/// Quantises with ONNX Runtime into the folder `target`, unless it is there; it appears whole.
fn make_rival(python: &Path, script: &Path, model: &Path, target: &Path) -> Result<()> {
    if target.is_dir() {
        return Ok(());
    }
    let partial = target.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let mut quantize = Command::new(python);
    quantize.arg(script).arg(model.join("model.onnx")).arg(partial.join("model.onnx"));
    process::run(&mut quantize)?;
    fs::rename(&partial, target).with_context(|| format!("cannot make {}", target.display()))
}
