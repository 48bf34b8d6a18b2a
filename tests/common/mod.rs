//! What the end-to-end tests share.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use planish::app::{Effort, Format, Method, OpenOptions, QuantizeRequest, Rounding, quantize};
use planish_models::{TinyModel, tiny_models};
use planish_passes::quantize::BitWidths;
use planish_runtime::npz::NpyArray;

/// A way to quantise.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub method: Method,
    pub bits: &'static str,
    pub group_size: Option<usize>,
}

impl Recipe {
    /// With one scale for each output channel.
    pub const fn new(method: Method, bits: &'static str) -> Self {
        Self { method, bits, group_size: None }
    }

    /// Whether an architecture is looked at in this form: the first ones in all, the others in two,
    /// as each takes its time. Of those, learning is tried where the cache stays outside; it can't
    /// be where experts are chosen.
    pub fn suits(self, arch: &str) -> bool {
        let is_first = ["llama", "qwen2", "phi3", "gemma2", "gpt2"].contains(&arch);
        let is_plain = self.group_size.is_none() && ["w4a4kv4", "w8a8kv8"].contains(&self.bits);
        is_first || (is_plain && (!self.method.learns() || arch == "mpt"))
    }

    /// A name for a folder.
    pub fn name(self) -> String {
        format!("{:?}-{}", self.method, self.bits).to_lowercase()
    }

    /// Bits of keys and values.
    pub fn kv_bits(self) -> u8 {
        self.bits.parse::<BitWidths>().unwrap().kv
    }

    /// What to ask for.
    pub fn request(self, model: &Path, output: &Path) -> QuantizeRequest {
        QuantizeRequest {
            model: model.to_owned(),
            output: output.to_owned(),
            method: self.method,
            bits: self.bits.parse().unwrap(),
            group_size: self.group_size,
            no_online: false,
            calibration: None,
            effort: Effort::Fast,
            recipe: if self.method.learns() { moment() } else { Vec::new() },
            workers: 1,
            rounding: Rounding::Nearest,
            format: Format::Fused,
            seed: 0,
            open: OpenOptions::default(),
            clip_search: true,
            lm_head_bits: 8,
            dump_ir: None,
        }
    }

    /// Quantises the model in the folder `model` into the folder `output`.
    pub fn quantize(self, model: &Path, output: &Path) {
        let result = quantize(&self.request(model, output), &mut |_| ());
        result.unwrap_or_else(|error| panic!("{self:?} of {}: {error:?}", model.display()));
    }
}

/// Quantised forms of the tiny models that are looked at.
pub const RECIPES: [Recipe; 5] = [
    Recipe::new(Method::Hadamard, "w4a4kv4"),
    Recipe::new(Method::Rtn, "w8a8kv8"),
    Recipe::new(Method::Rtn, "w4a16kv16"),
    Recipe { method: Method::Rtn, bits: "w4a8kv4", group_size: Some(16) },
    Recipe::new(Method::Orthogonal, "w8a4kv16"),
];

/// Those to try on a model: of the ones that are not tried thoroughly the first two, 4 bits with
/// transforms and 8 bits without.
pub fn recipes_for(tiny: &TinyModel) -> Vec<Recipe> {
    let n = if tiny.is_tried_thoroughly() { RECIPES.len() } else { 2 };
    RECIPES.into_iter().take(n).filter(|recipe| recipe.suits(&tiny.arch)).collect()
}

/// The tiny models on which every format is tried.
pub fn thorough_models() -> Vec<TinyModel> {
    tiny_models().into_iter().filter(TinyModel::is_tried_thoroughly).collect()
}

/// One whose transforms and clipping are learned.
pub const LEARNED: Recipe = Recipe::new(Method::Flatquant, "w4a4kv4");

/// Changes of a learning method's recipe: it learns for a moment, from what the model writes.
fn moment() -> Vec<(String, String)> {
    let changes = [("windows", 4), ("length", 16), ("batch", 2), ("steps", 3)];
    let changes = changes.into_iter().chain([("last-batch", 2), ("last-steps", 2)]);
    changes.map(|(name, n)| (name.to_owned(), n.to_string())).collect()
}

/// Runs a script of `tests/python` with ONNX Runtime; returns what it prints.
pub fn python(script: &str, arguments: &[String]) -> String {
    let interpreter = std::env::var_os("PLANISH_PYTHON_ORACLE").unwrap_or("python3".into());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let output =
        Command::new(interpreter).arg(folder.join(script)).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The SmolLM2 export by optimum, whole.
pub fn smollm2() -> PathBuf {
    let cache = planish_models::default_cache_dir().unwrap();
    planish_models::fetch(planish_models::Exporter::Optimum, &cache, &mut |_| ()).unwrap()
}

/// The array called `name`.
pub fn find<'a>(arrays: &'a [(String, NpyArray)], name: &str) -> &'a NpyArray {
    let found = arrays.iter().find(|(n, _)| n == name);
    &found.unwrap_or_else(|| panic!("no array {name}")).1
}

/// Token ids of a row of `i64`.
pub fn tokens(array: &NpyArray) -> Vec<u32> {
    array.to_i64().unwrap().into_iter().map(|id| u32::try_from(id).unwrap()).collect()
}

/// The largest difference, relative to the largest element of `expected`.
pub fn difference(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    assert!(actual.iter().all(|x| x.is_finite()));
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let difference = actual.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    difference / largest.max(f32::MIN_POSITIVE)
}
