//! What is written is what was read or made: exports come back with the same logits, an emitted
//! folder, opened again, is the model that was quantised in memory.

mod common;

use std::path::Path;

use common::{Recipe, find, python, recipes_for, tokens};
use planish::app::{OpenOptions, open_model};
use planish_ir::Model;
use planish_models::{Exporter, tiny_models};
use planish_onnx::{ExternalData, ValueInfo, WriteOptions, read_model, write_model};
use planish_passes::PassManager;
use planish_passes::canonicalize::canonicalize;
use planish_passes::quantize::{Method, QuantizeOptions, quantize};
use planish_runtime::decoder::{Decoder, DecoderOptions};
use planish_runtime::engine::cpu::CpuEngine;
use planish_runtime::npz::read_npz;
use planish_runtime::{LanguageModel, Logits};

/// What `planish quantize` makes, before it is written.
fn quantized_in_memory(folder: &Path, recipe: Recipe) -> Model {
    let mut model = read_model(&folder.join("model.onnx")).unwrap();
    canonicalize(&mut model, &mut PassManager::new()).unwrap();
    let options = QuantizeOptions {
        bits: recipe.bits.parse().unwrap(),
        method: match recipe.method {
            planish::app::Method::Hadamard => Method::Hadamard,
            planish::app::Method::Orthogonal => Method::Orthogonal,
            planish::app::Method::Rtn => Method::Rtn,
            other => panic!("{other:?} needs a text"),
        },
        group_size: recipe.group_size,
        ..QuantizeOptions::default()
    };
    quantize(&mut model, &options, None, &mut |_| ()).unwrap();
    model
}

/// The bits of the logits of a prompt and of a step after it.
fn logits(model: &mut dyn LanguageModel, prompt: &[u32], step: &[u32]) -> Vec<u32> {
    let prefill = model.forward(prompt, Logits::All).unwrap().data;
    let step = model.forward(step, Logits::Last).unwrap().data;
    prefill.into_iter().chain(step).map(f32::to_bits).collect()
}

#[test]
fn written_models_are_what_was_quantised() {
    let root = tempfile::tempdir().unwrap();
    for tiny in tiny_models() {
        let expected = read_npz(&tiny.dir.join("expected.npz")).unwrap();
        let [prompt, step] = ["ids", "step_ids"].map(|name| tokens(find(&expected, name)));
        for recipe in recipes_for(&tiny) {
            let model = quantized_in_memory(&tiny.dir, recipe);
            let options = DecoderOptions::default();
            let mut in_memory = Decoder::new(model, &CpuEngine::new(0), options).unwrap();
            let folder = root.path().join(format!("{}-{}", tiny.name, recipe.bits));
            recipe.quantize(&tiny.dir, &folder);
            let mut written = open_model(&folder, &OpenOptions::default()).unwrap();
            let (a, b) =
                (logits(&mut in_memory, &prompt, &step), logits(written.as_mut(), &prompt, &step));
            assert!(a == b, "{} by {recipe:?}", tiny.name);
        }
    }
}

/// The real exports are written without having been changed: no value may get lost on the way.
#[test]
fn real_exports_give_the_same_logits_when_written_again() {
    let cache = planish_models::default_cache_dir().unwrap();
    for exporter in Exporter::ALL {
        let export = planish_models::fetch(exporter, &cache, &mut |_| ()).unwrap();
        let original = export.join("model.onnx");
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("model.onnx");
        let external_data = ExternalData::Beside { file_name: "data".into(), min_bytes: 1024 };
        let options = WriteOptions { external_data, value_info: ValueInfo::Declared };
        write_model(&read_model(&original).unwrap(), &copy, &options).unwrap();
        let [original, copy] = [original, copy].map(|path| path.display().to_string());
        python("same_logits.py", &["--head-size".into(), "64".into(), original, copy]);
    }
}
