//! The formats for other runtimes: what ONNX Runtime and onnxruntime-genai make of them, and what
//! planish makes of what it wrote.

mod common;

use std::path::{Path, PathBuf};

use common::{Recipe, difference, find, python, smollm2, tokens};
use planish::app::{Format, Method, OpenOptions, inspect, open_model, quantize};
use planish_models::tiny_models;
use planish_runtime::npz::{read_npz, write_npz};
use planish_runtime::text::TextTokenizer;
use planish_runtime::{LanguageModel, Logits};

/// Largest difference of logits between our engine, which takes activations in 16-bit fixed point
/// where weights alone are quantised, and ONNX Runtime; relative to the largest.
const WEIGHT_ONLY: f32 = 5e-4;
/// The same where it rounds the activations of the head, whose weight has 8 bits, to 8 bits.
const ROUNDED_HEAD: f32 = 2e-2;
/// The same where ONNX Runtime rounds activations to 8 bits, which our engine doesn't.
const ROUNDED_INSIDE: f32 = 0.1;
/// Tokens that are generated.
const NEW_TOKENS: usize = 24;
/// By how much the likeliest token must be ahead of the next, relative to the largest logit, for
/// an 8-bit head to agree on it.
const MARGIN: f32 = 1e-2;

/// A way to write a model.
#[derive(Clone, Copy)]
struct Case {
    format: Format,
    recipe: Recipe,
    tolerance: f32,
}

const CASES: [Case; 4] = [
    case(Format::MatMulNBits, Method::Hadamard, "w4a16kv16", None, ROUNDED_HEAD),
    case(Format::MatMulNBits, Method::Rtn, "w4a8kv16", Some(16), ROUNDED_INSIDE),
    case(Format::Qdq, Method::Orthogonal, "w4a16kv16", Some(16), WEIGHT_ONLY),
    case(Format::Qdq, Method::Rtn, "w8a16kv16", None, WEIGHT_ONLY),
];

const fn case(
    format: Format,
    method: Method,
    bits: &'static str,
    group_size: Option<usize>,
    tolerance: f32,
) -> Case {
    Case { format, recipe: Recipe { method, bits, group_size }, tolerance }
}

impl Case {
    fn name(self) -> String {
        format!("{:?}-{}", self.format, self.recipe.name()).to_lowercase()
    }

    /// Quantises; returns what is noted.
    fn quantize(self, model: &Path, output: &Path) -> Vec<String> {
        let mut request = self.recipe.request(model, output);
        request.format = self.format;
        let result = quantize(&request, &mut |_| ());
        let failed = |error| panic!("{} of {}: {error}", self.name(), model.display());
        result.unwrap_or_else(failed).notes
    }
}

/// Logits of all tokens of a prompt, and of the step after it.
fn logits(model: &mut dyn LanguageModel, prompt: &[u32], step: &[u32]) -> [Vec<f32>; 2] {
    let prefill = model.forward(prompt, Logits::All).unwrap().data;
    [prefill, model.forward(step, Logits::Last).unwrap().data]
}

/// Checks ONNX Runtime's logits, with optimisations and without, against ours.
fn check_logits(name: &str, folder: &Path, tolerance: f32) {
    let read = |file: &str| read_npz(&folder.join(file)).unwrap();
    let (ids, theirs) = (read("ids.npz"), read("ort.npz"));
    let [prompt, step] = ["ids", "step_ids"].map(|key| tokens(find(&ids, key)));
    let mut model = open_model(folder, &OpenOptions::default()).unwrap();
    let ours = logits(model.as_mut(), &prompt, &step);
    for prefix in ["", "plain_"] {
        for (run, ours) in ["prefill", "step"].into_iter().zip(&ours) {
            let expected = find(&theirs, &format!("{prefix}{run}")).to_f32().unwrap();
            let difference = difference(ours, &expected);
            assert!(difference <= tolerance, "{name}, {prefix}{run}: {difference}");
        }
    }
}

/// Architectures whose tiny models rotate heads of 16 channels as a whole, which ONNX Runtime's
/// attention takes in; it takes neither fewer nor, in these sizes, a part of them.
const WHOLE_HEADS: [&str; 4] = ["llama-", "qwen2-", "phi3-", "gemma2-"];

/// A tiny model as it was written.
struct Written {
    name: String,
    folder: PathBuf,
    case: Case,
    /// Whether an attention has no form among ONNX Runtime's own operators.
    is_left: bool,
}

/// Writes every tiny model in the first case, and in one of the others by turns.
fn write_tiny_models(root: &Path) -> Vec<Written> {
    let mut written = Vec::new();
    for (i, tiny) in tiny_models().into_iter().enumerate() {
        let expected = read_npz(&tiny.dir.join("expected.npz")).unwrap();
        let before = inspect(&tiny.dir).unwrap().recognised.unwrap();
        // Experts of 24 channels, which groups of 16 do not divide.
        let is_small = ["olmoe", "qwen2moe"].contains(&tiny.arch.as_str());
        let other = if is_small { 3 } else { 1 + i % (CASES.len() - 1) };
        for case in [CASES[0], CASES[other]] {
            let folder = root.join(format!("{}-{}", tiny.name, case.name()));
            let notes = case.quantize(&tiny.dir, &folder);
            let is_left = notes.iter().any(|note| note.contains("stays as it is"));
            let ids = ["ids", "step_ids"].map(|n| (n.to_owned(), find(&expected, n).clone()));
            write_npz(&folder.join("ids.npz"), &ids).unwrap();
            let name = format!("{} as {}", tiny.name, case.name());
            let model = Written { name, folder, case, is_left };
            check_recognised(&model, before.attentions);
            written.push(model);
        }
    }
    written
}

/// What was written is made of the format's operators, and read back in canonical form.
fn check_recognised(model: &Written, n_attentions: usize) {
    let name = &model.name;
    let report = inspect(&model.folder).unwrap();
    if model.case.format == Format::MatMulNBits && !model.is_left {
        let is_whole = WHOLE_HEADS.iter().any(|architecture| name.starts_with(architecture));
        let left = [("Attention", true), ("DequantizeLinear", true), ("RotaryEmbedding", is_whole)];
        let left = left.iter().find(|(op, gone)| *gone && report.nodes.contains_key(*op));
        assert_eq!(left, None, "{name}");
    }
    let canonical = report.recognised.unwrap();
    assert_eq!(canonical.attentions, n_attentions, "{name}: {:?}", canonical.nodes);
    let contributed = canonical.nodes.keys().find(|op| op.starts_with("com.microsoft"));
    assert_eq!(contributed, None, "{name}");
}

#[test]
fn tiny_models_in_every_format_run_the_same_in_other_runtimes() {
    let root = tempfile::tempdir().unwrap();
    let written = write_tiny_models(root.path());
    let folders: Vec<String> = written.iter().map(|w| w.folder.display().to_string()).collect();
    python("logits.py", &folders);
    let (mut n_models, mut n_tokens) = (0, 0);
    for model in &written {
        check_logits(&model.name, &model.folder, model.case.tolerance);
        if model.case.tolerance == ROUNDED_HEAD {
            let ids = read_npz(&model.folder.join("ids.npz")).unwrap();
            let ids = tokens(find(&ids, "ids"));
            n_models += 1;
            n_tokens += check_genai(&model.name, &model.folder, &[ids], MARGIN);
        }
    }
    println!("onnxruntime-genai: {n_tokens} tokens of {n_models} models");
    assert!(n_tokens >= 2 * n_models, "{n_tokens} tokens of {n_models} models were clear");
}

/// Our likeliest tokens after the prompt, up to the first that is not clearly ahead.
fn clear_tokens(model: &mut dyn LanguageModel, prompt: &[u32], margin: f32) -> Vec<u32> {
    model.reset();
    let mut next = prompt.to_vec();
    let mut found = Vec::new();
    for _ in 0..NEW_TOKENS {
        let logits = model.forward(&next, Logits::Last).unwrap().data;
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let largest = logits.iter().fold(0f32, |m, x| m.max(x.abs()));
        if logits[order[0]] - logits[order[1]] < margin * largest {
            break;
        }
        next = vec![order[0] as u32];
        found.extend(&next);
    }
    found
}

/// Compares what onnxruntime-genai writes after the prompts with our own greedy choice; returns
/// how many tokens were compared.
fn check_genai(name: &str, folder: &Path, prompts: &[Vec<u32>], margin: f32) -> usize {
    let join = |ids: &Vec<u32>| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut arguments = vec![folder.display().to_string(), NEW_TOKENS.to_string()];
    arguments.extend(prompts.iter().map(join));
    let lines = python("genai.py", &arguments);
    let mut model = open_model(folder, &OpenOptions::default()).unwrap();
    let mut n_compared = 0;
    for (prompt, line) in prompts.iter().zip(lines.lines()) {
        let theirs: Vec<u32> = line.split(',').map(|id| id.parse().unwrap()).collect();
        let ours = clear_tokens(model.as_mut(), prompt, margin);
        let n = ours.len().min(theirs.len());
        assert_eq!(ours[..n], theirs[..n], "{name} after {prompt:?}");
        n_compared += n;
    }
    n_compared
}

/// Texts whose continuations a 4-bit model is sure of.
const PROMPTS: [&str; 3] =
    ["1, 2, 3, 4, 5, 6, 7, 8,", "Monday, Tuesday, Wednesday,", "a b c d e f g"];

#[test]
fn genai_continues_a_real_model_as_we_do() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("out");
    let case = case(Format::MatMulNBits, Method::Rtn, "w4a16kv16", Some(32), ROUNDED_HEAD);
    assert_eq!(case.quantize(&smollm2(), &folder), Vec::<String>::new());
    let tokenizer = TextTokenizer::load(&folder).unwrap();
    let encode = |text: &&str| tokenizer.encode(text, false).unwrap();
    let prompts: Vec<Vec<u32>> = PROMPTS.iter().map(encode).collect();
    let n_tokens = check_genai("SmolLM2", &folder, &prompts, MARGIN);
    println!("{n_tokens} tokens");
    assert!(n_tokens >= 8, "{n_tokens} tokens were clear");
}

#[test]
fn a_format_refuses_what_it_has_no_words_for() {
    let root = tempfile::tempdir().unwrap();
    let model = &tiny_models()[0].dir;
    let output = root.path().join("out");
    let refusals = [
        (Format::MatMulNBits, "w4a4kv16", None, "no a4: ask for a8 or a16"),
        (Format::MatMulNBits, "w4a16kv4", None, "no kv4: ask for kv16"),
        (Format::MatMulNBits, "w16a8kv16", None, "ask for w4 or w8"),
        (Format::MatMulNBits, "w4a16kv16", Some(8), "multiples of 16, and not 8"),
        (Format::Qdq, "w4a8kv16", None, "no a8: ask for a16"),
    ];
    for (format, bits, group_size, reason) in refusals {
        let recipe = Recipe { method: Method::Rtn, bits, group_size };
        let request = planish::app::QuantizeRequest { format, ..recipe.request(model, &output) };
        let error = quantize(&request, &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(!output.exists());
    }
}

#[test]
fn what_is_quantised_is_not_quantised_again() {
    let root = tempfile::tempdir().unwrap();
    let model = &tiny_models()[0].dir;
    for case in CASES {
        let (once, twice) = (root.path().join(case.name()), root.path().join("twice"));
        case.quantize(model, &once);
        let error = quantize(&case.recipe.request(&once, &twice), &mut |_| ()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("is quantised already, as "), "{error}");
        assert!(error.contains("start from the original model") && !twice.exists(), "{error}");
    }
}
