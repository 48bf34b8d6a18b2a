//! Every exported model against the logits that ONNX Runtime gave.

mod cuda;
mod eight_bits;
mod forms;
mod learned;
mod padding;
mod scores;

use std::path::{Path, PathBuf};

use planish_ir::Model;
use planish_passes::quantize::{Method, QuantizeOptions, quantize};

use super::*;
use crate::engine::cpu::CpuEngine;
use crate::npz::{NpyArray, read_npz};

/// Largest difference of logits, relative to the largest logit.
const TOLERANCE: f32 = 1e-4;

/// Folders with `model.onnx` and `expected.npz`.
fn tiny_models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny");
    let entries = std::fs::read_dir(folder).expect("the folder of the tiny models");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 10);
    folders
}

fn read(folder: &Path) -> Model {
    planish_onnx::read_model(&folder.join("model.onnx")).unwrap()
}

/// The arrays of `expected.npz`.
struct Expected {
    ids: Vec<u32>,
    logits: Vec<f32>,
    step_ids: Vec<u32>,
    step_logits: Vec<f32>,
}

impl Expected {
    fn read(file: &Path) -> Self {
        let arrays = read_npz(file).unwrap();
        let find = |name: &str| &arrays.iter().find(|(n, _)| n == name).unwrap().1;
        let ids = |name| find(name).to_i64().unwrap().iter().map(|id| *id as u32).collect();
        let floats = |name| find(name).to_f32().unwrap();
        Self {
            ids: ids("ids"),
            logits: floats("logits"),
            step_ids: ids("step_ids"),
            step_logits: floats("step_logits"),
        }
    }
}

fn open(model: &Model, options: DecoderOptions) -> Decoder {
    Decoder::new(model.clone(), &CpuEngine::new(2), options).unwrap()
}

#[track_caller]
fn assert_close(name: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{name}");
    let (difference, largest) = distance(got, expected);
    assert!(difference <= tolerance * largest, "{name}: {difference} of {largest}");
}

/// The largest difference, infinite where something is not finite, and the largest of what is
/// expected.
fn distance(got: &[f32], expected: &[f32]) -> (f32, f32) {
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let difference = got.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    let finite = got.iter().all(|x| x.is_finite());
    (if finite { difference } else { f32::INFINITY }, largest)
}

/// Prefill and one decoding step agree with ONNX Runtime.
fn check_logits(name: &str, decoder: &mut Decoder, expected: &Expected) {
    let out = decoder.forward(&expected.ids, Logits::All).unwrap();
    assert_close(name, &out.data, &expected.logits, TOLERANCE);
    let step = decoder.forward(&expected.step_ids, Logits::Last).unwrap();
    assert_close(name, &step.data, &expected.step_logits, TOLERANCE);
    assert_eq!(decoder.n_past(), expected.ids.len() + expected.step_ids.len());
    assert!(decoder.memory().weights > 0 && decoder.memory().cache > 0);
}

fn for_each_model(mode: Mode, check: impl Fn(&str, &Model, DecoderOptions, Expected)) {
    for folder in tiny_models() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let options = DecoderOptions { mode, ..DecoderOptions::default() };
        let expected = Expected::read(&folder.join("expected.npz"));
        check(&format!("{name}, {mode:?}"), &read(&folder), options, expected);
    }
}

/// Whether attention adds a bias of its own to each head (ALiBi): its cache stays with the graph's
/// inputs and outputs.
fn has_bias(name: &str) -> bool {
    ["bloom", "mpt"].iter().any(|arch| name.starts_with(arch))
}

#[test]
fn imported_graphs_give_the_logits_of_onnx_runtime() {
    for_each_model(Mode::AsImported, |name, model, options, expected| {
        check_logits(name, &mut open(model, options), &expected);
    });
}

#[test]
fn lowered_graphs_give_the_logits_of_onnx_runtime() {
    for_each_model(Mode::Lowered, |name, model, options, expected| {
        let mut decoder = open(model, options);
        assert_eq!(decoder.empty.is_empty(), !has_bias(name), "{name}: all caches are in place");
        assert!(decoder.selects, "{name}: logits can be left out");
        check_logits(name, &mut decoder, &expected);
        decoder.reset();
        assert_eq!((decoder.n_past(), decoder.memory().cache), (0, 0), "{name}");
        check_logits(name, &mut decoder, &expected);
    });
}

#[test]
fn pieces_of_a_prompt_give_what_the_whole_gives() {
    for mode in [Mode::AsImported, Mode::Lowered] {
        for_each_model(mode, |name, model, options, expected| {
            let mut decoder = open(model, DecoderOptions { chunk: 2, ..options });
            check_logits(name, &mut decoder, &expected);
            decoder.reset();
            let last = decoder.forward(&expected.ids, Logits::Last).unwrap();
            let n = expected.logits.len();
            assert_close(name, &last.data, &expected.logits[n - last.vocab..], TOLERANCE);
        });
    }
}

#[test]
fn the_last_logits_are_the_last_of_all() {
    for_each_model(Mode::Lowered, |name, model, options, expected| {
        let mut decoder = open(model, options);
        let all = decoder.forward(&expected.ids, Logits::All).unwrap();
        decoder.reset();
        let last = decoder.forward(&expected.ids, Logits::Last).unwrap();
        assert_eq!((all.rows, last.rows), (expected.ids.len(), 1));
        assert_close(name, &last.data, all.last_row().unwrap(), 1e-5);
    });
}

#[test]
fn sequences_of_a_batch_do_not_see_each_other() {
    for mode in [Mode::AsImported, Mode::Lowered] {
        for_each_model(mode, |name, model, options, expected| {
            let other: Vec<u32> = expected.ids.iter().rev().copied().collect();
            let both = [expected.ids.clone(), other.clone()].concat();
            let steps = [expected.step_ids.clone(), expected.ids[..1].to_vec()].concat();
            let mut pair = open(model, DecoderOptions { batch: 2, chunk: 3, ..options });
            let prefill = pair.forward(&both, Logits::All).unwrap();
            let step = pair.forward(&steps, Logits::Last).unwrap();
            let mut single = open(model, options);
            for (row, (ids, next)) in
                [(&expected.ids, steps[0]), (&other, steps[1])].into_iter().enumerate()
            {
                single.reset();
                let alone = single.forward(ids, Logits::All).unwrap();
                let n = alone.data.len();
                assert_close(name, &prefill.data[row * n..(row + 1) * n], &alone.data, 1e-5);
                let alone = single.forward(&[next], Logits::Last).unwrap();
                assert_close(name, step.row(row).unwrap(), &alone.data, 1e-5);
            }
        });
    }
}

#[test]
fn tokens_that_do_not_fit_leave_the_cache_as_it_was() {
    let folder = &tiny_models()[0];
    let expected = Expected::read(&folder.join("expected.npz"));
    for mode in [Mode::AsImported, Mode::Lowered] {
        let mut decoder = open(&read(folder), DecoderOptions { mode, ..DecoderOptions::default() });
        decoder.forward(&expected.ids, Logits::Last).unwrap();
        let vocab = decoder.vocab_size() as u32;
        let refused = decoder.forward(&[0, vocab], Logits::Last);
        assert!(matches!(refused, Err(ModelError::TokenOutOfRange { .. })));
        let step = decoder.forward(&expected.step_ids, Logits::Last).unwrap();
        assert_close("after a refusal", &step.data, &expected.step_logits, TOLERANCE);
    }
}

#[test]
fn learned_positions_bound_the_context() {
    let has_table = |folder: &&PathBuf| {
        let name = folder.to_string_lossy();
        name.contains("gpt2") || name.contains("/opt-") || name.ends_with("gptj-dynamo18")
    };
    for folder in tiny_models().iter().filter(has_table) {
        let mut decoder = open(&read(folder), DecoderOptions::default());
        let capacity = decoder.max_positions().expect("a table of positions");
        let ids = vec![1; capacity];
        decoder.forward(&ids, Logits::Last).unwrap();
        let full = decoder.forward(&[1], Logits::Last);
        assert!(matches!(full, Err(ModelError::ContextFull { needed, capacity: c })
            if needed == capacity + 1 && c == capacity));
    }
}

/// A canonical model quantised to `bits`.
fn quantized(model: &Model, bits: &str, method: Method) -> Model {
    let mut model = model.clone();
    canonicalize::canonicalize(&mut model, &mut PassManager::new()).unwrap();
    let bits = bits.parse().unwrap();
    let options = QuantizeOptions { bits, method, ..QuantizeOptions::default() };
    quantize(&mut model, &options, None, &mut |_| {}).unwrap();
    model
}

#[test]
fn a_packed_cache_and_fused_steps_give_what_the_quantised_graph_gives() {
    // A code that falls to the other side of a half moves the logits, the more the fewer bits.
    for (bits, method, tolerance) in
        [("w8a8kv8", Method::Rtn, 0.005), ("w4a4kv4", Method::Hadamard, 0.03)]
    {
        for_each_model(Mode::Lowered, |name, model, options, expected| {
            let model = quantized(model, bits, method);
            let as_it_is = DecoderOptions { mode: Mode::AsImported, ..options };
            let (mut plain, mut lowered) = (open(&model, as_it_is), open(&model, options));
            assert_eq!(
                lowered.empty.is_empty(),
                !has_bias(name),
                "{name}: all caches are in place"
            );
            assert!(has_bias(name) || lowered.summary().steps < plain.summary().steps, "{name}");
            for (ids, want) in [(&expected.ids, Logits::All), (&expected.step_ids, Logits::Last)] {
                let plain = plain.forward(ids, want).unwrap();
                let lowered = lowered.forward(ids, want).unwrap();
                assert_close(&format!("{name}, {bits}"), &lowered.data, &plain.data, tolerance);
            }
            assert!(has_bias(name) || lowered.memory().cache < plain.memory().cache, "{name}");
        });
    }
}

#[test]
fn a_real_model_gives_the_logits_of_onnx_runtime() {
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/smollm2/expected.npz");
    let expected = Expected::read(&expected);
    assert_eq!((expected.ids.len(), expected.logits.len()), (5, 5 * 49152));
    let cache = planish_models::default_cache_dir().unwrap();
    for exporter in planish_models::Exporter::ALL {
        let folder = planish_models::fetch(exporter, &cache, &mut |_| {}).unwrap();
        let name = folder.to_string_lossy().into_owned();
        for mode in [Mode::AsImported, Mode::Lowered] {
            let mut decoder =
                open(&read(&folder), DecoderOptions { mode, ..DecoderOptions::default() });
            check_logits(&name, &mut decoder, &expected);
        }
    }
}

fn ids_array(ids: &[u32], batch: usize) -> NpyArray {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    NpyArray::from_i64(&[batch, ids.len() / batch], &ids)
}

#[test]
fn a_run_on_arrays_makes_what_follows_from_the_tokens() {
    let engine = CpuEngine::new(2);
    for_each_model(Mode::AsImported, |name, model, _, expected| {
        let inputs = vec![("input_ids".to_owned(), ids_array(&expected.ids, 1))];
        let outputs = forward_arrays(model, &engine, inputs).unwrap();
        assert_eq!(outputs.len(), model.graph.outputs.len());
        let logits = &outputs.iter().find(|(n, _)| n == "logits").unwrap().1;
        assert_close(name, &logits.to_f32().unwrap(), &expected.logits, TOLERANCE);
        // The outputs are the caches of the next run.
        let past = |n: &String| n.replace("present", "past_key_values");
        let caches =
            outputs.iter().filter(|(n, _)| n != "logits").map(|(n, a)| (past(n), a.clone()));
        let mut inputs: Vec<_> = caches.collect();
        inputs.push(("input_ids".to_owned(), ids_array(&expected.step_ids, 1)));
        let outputs = forward_arrays(model, &engine, inputs).unwrap();
        let logits = &outputs.iter().find(|(n, _)| n == "logits").unwrap().1;
        assert_close(name, &logits.to_f32().unwrap(), &expected.step_logits, TOLERANCE);
    });
}

#[test]
fn missing_and_unknown_arrays_are_named() {
    let (model, engine) = (read(&tiny_models()[0]), CpuEngine::new(1));
    let error = forward_arrays(&model, &engine, Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "the input \"input_ids\" is missing");
    let odd = vec![("odd".to_owned(), ids_array(&[1], 1))];
    let error = forward_arrays(&model, &engine, odd).unwrap_err();
    assert_eq!(error.to_string(), "the graph has no input \"odd\"");
    let wrong = vec![("input_ids".to_owned(), NpyArray::from_f32(&[1, 1], &[0.5]))];
    let error = forward_arrays(&model, &engine, wrong).unwrap_err().to_string();
    assert!(error.starts_with("the input \"input_ids\" takes int64"), "{error}");
}

#[test]
fn a_graph_that_is_no_decoder_says_what_is_missing() {
    let mut model = Model::default();
    model.set_opset("", 23);
    let error = Decoder::new(model, &CpuEngine::new(1), DecoderOptions::default()).err().unwrap();
    assert_eq!(error.to_string(), "the graph is no decoder: it has no input of token ids");
}
