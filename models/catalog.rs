//! The models that lie beside this crate.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Files of SmolLM2-135M-Instruct that do not depend on the exporter.
const COMMON: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// A program that turns PyTorch models into ONNX graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exporter {
    /// optimum, through TorchScript: opset 18.
    Optimum,
    /// `torch.onnx.export(dynamo=True)` at opset 18.
    Dynamo18,
    /// `torch.onnx.export(dynamo=True)` at opset 23, with RMSNormalization and Attention.
    Dynamo23,
    /// onnxruntime-genai's model builder: opset 22 and com.microsoft.
    Genai,
}

impl Exporter {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Optimum, Self::Dynamo18, Self::Dynamo23, Self::Genai];

    /// Name in folders and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Optimum => "optimum",
            Self::Dynamo18 => "dynamo18",
            Self::Dynamo23 => "dynamo23",
            Self::Genai => "genai",
        }
    }

    /// Folder of SmolLM2's graph by this exporter, without its weights.
    pub fn folder(self) -> PathBuf {
        root().join("smollm2").join(self.name())
    }

    /// The manifest of that graph's external data.
    pub fn manifest(self) -> PathBuf {
        self.folder().join("weights.json")
    }

    /// Every file of the complete model but its external data.
    pub(crate) fn files(self) -> Vec<PathBuf> {
        let own: &[_] = match self {
            Self::Genai => &["model.onnx", "genai_config.json"],
            _ => &["model.onnx"],
        };
        let own = own.iter().map(|name| self.folder().join(name));
        own.chain(COMMON.iter().map(|name| root().join("smollm2").join(name))).collect()
    }
}

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Exporter {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|exporter| exporter.name() == name)
            .ok_or_else(|| format!("no exporter \"{name}\" (optimum, dynamo18, dynamo23, genai)"))
    }
}

/// A model of one or two small blocks with random weights, whole in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TinyModel {
    /// Its folder's name, `<arch>-<exporter>`.
    pub name: String,
    /// Architecture, such as `llama` or `gpt2`.
    pub arch: String,
    /// Where its graph comes from.
    pub exporter: Exporter,
    /// Holds `model.onnx`, its external data if any, and `expected.npz`.
    pub dir: PathBuf,
}

/// Names of the models on which every format and recipe is tried.
const THOROUGH: [&str; 11] = [
    "gemma2-dynamo18",
    "gpt2-dynamo18",
    "gpt2-optimum",
    "llama-dynamo18",
    "llama-dynamo23",
    "llama-optimum",
    "phi3-dynamo23",
    "phi3-optimum",
    "qwen2-dynamo18",
    "qwen2-genai",
    "qwen2-optimum",
];

impl TinyModel {
    /// Whether tests try every format and recipe on it. The others are there for what is
    /// recognised in them; trying all on all would take too long.
    pub fn is_tried_thoroughly(&self) -> bool {
        THOROUGH.contains(&self.name.as_str())
    }

    fn at(dir: PathBuf) -> Option<Self> {
        let name = dir.file_name()?.to_str()?.to_owned();
        let (arch, exporter) = name.rsplit_once('-')?;
        let (arch, exporter) = (arch.to_owned(), exporter.parse().ok()?);
        Some(Self { name, arch, exporter, dir })
    }
}

/// The tiny models by name; none when the folder is not there.
pub fn tiny_models() -> Vec<TinyModel> {
    let entries = fs::read_dir(root().join("tiny")).into_iter().flatten().flatten();
    let mut models: Vec<_> = entries.filter_map(|entry| TinyModel::at(entry.path())).collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    models
}

/// What ONNX Runtime computes with SmolLM2-135M-Instruct: arrays `ids` (1×5, i64), `logits`
/// (1×5×49152, f32), `step_ids` and `step_logits` (one decoding step on the first run's cache).
pub fn smollm2_expected() -> PathBuf {
    root().join("smollm2/expected.npz")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_every_exporter_is_there() {
        for exporter in Exporter::ALL {
            for file in exporter.files().into_iter().chain([exporter.manifest()]) {
                assert!(file.is_file(), "{}", file.display());
            }
        }
        assert!(smollm2_expected().is_file());
    }

    #[test]
    fn names_and_exporters_correspond() {
        for exporter in Exporter::ALL {
            assert_eq!(exporter.to_string().parse(), Ok(exporter));
        }
        assert!("onnx".parse::<Exporter>().unwrap_err().contains("\"onnx\""));
    }

    #[test]
    fn every_tiny_folder_is_listed_and_complete() {
        let models = tiny_models();
        let folders = fs::read_dir(root().join("tiny")).unwrap().count();
        assert_eq!(models.len(), folders);
        let n_thorough = models.iter().filter(|model| model.is_tried_thoroughly()).count();
        assert_eq!(n_thorough, THOROUGH.len());
        for model in models {
            assert_eq!(model.name, format!("{}-{}", model.arch, model.exporter));
            assert!(model.dir.join("model.onnx").is_file(), "{}", model.name);
            assert!(model.dir.join("expected.npz").is_file(), "{}", model.name);
        }
    }
}
