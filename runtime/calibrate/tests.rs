//! Tests of whole calibrations of the tiny models.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use planish_ir::Model;
use planish_passes::PassManager;
use planish_passes::calibrate::{LearnedBlock, Online, StudentOptions};
use planish_passes::canonicalize::canonicalize;
use planish_passes::quantize::{
    self, Hessians, ModelQuantizer, QuantizeError, QuantizeOptions, Rounding,
};
use planish_passes::sites::Layout;
use planish_passes::transform::{Matrix, SiteMatrix, TransformSet, insert_transforms, inverse};

use super::*;
use crate::decoder::{Decoder, DecoderOptions, Roles, collect_hessians};
use crate::engine::Engine;
use crate::engine::cpu::CpuEngine;
use crate::{LanguageModel, Logits};

mod cuda;

/// A canonical model with a text.
struct Bench {
    model: Model,
    layout: Layout,
    ids: Vec<u32>,
}

impl Bench {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny").join(name);
        let mut model = planish_onnx::read_model(&folder.join("model.onnx")).unwrap();
        canonicalize(&mut model, &mut PassManager::new()).unwrap();
        let layout = Layout::new(&model).unwrap();
        let vocab = Roles::find(&model).unwrap().vocab as u64;
        let mut random = planish_passes::transform::Random::new(1);
        let ids = (0..8 * 16 + 5).map(|_| (random.bits() % vocab) as u32).collect();
        Self { model, layout, ids }
    }

    /// Calibrates.
    fn run(
        &self,
        options: &StudentOptions,
        recipe: &Recipe,
        more: More<'_>,
    ) -> Result<Done, CalibrationError> {
        self.run_on(&CpuEngine::new(2), options, recipe, more)
    }

    fn calibration<'a>(
        &'a self,
        engine: &'a dyn Engine,
        options: &'a StudentOptions,
        recipe: &'a Recipe,
        more: More<'a>,
    ) -> Calibration<'a> {
        Calibration {
            engine,
            model: &self.model,
            layout: &self.layout,
            options,
            recipe,
            ids: &self.ids,
            seed: more.seed,
            hessians: more.hessians,
            workers: more.workers,
            store: more.store,
        }
    }

    /// Calibrates on an engine.
    fn run_on(
        &self,
        engine: &dyn Engine,
        options: &StudentOptions,
        recipe: &Recipe,
        more: More<'_>,
    ) -> Result<Done, CalibrationError> {
        let calibration = self.calibration(engine, options, recipe, more);
        let (mut steps, mut blocks, mut hessians) = (Vec::new(), Vec::new(), Vec::new());
        let (n_steps, mut finished_at) = (AtomicUsize::new(0), Vec::new());
        let mut progress = |step| {
            n_steps.fetch_add(1, Ordering::Relaxed);
            steps.push(step);
        };
        let outcome = calibration.run(&mut progress, &mut |index, block, found| {
            assert_eq!(index, blocks.len());
            blocks.push(block);
            hessians.push(found);
            finished_at.push(n_steps.load(Ordering::Relaxed));
            Ok(())
        })?;
        Ok(Done { outcome, blocks, hessians, steps, finished_at })
    }

    /// The model quantised with what was learned.
    fn quantized(&self, options: &StudentOptions, done: &Done, rounding: Rounding) -> Model {
        let mut model = self.model.clone();
        let StudentOptions { bits, group_size, .. } = *options;
        let quantize = QuantizeOptions {
            bits,
            group_size,
            rounding,
            lm_head_bits: 16,
            ..QuantizeOptions::default()
        };
        let mut quantizer = ModelQuantizer::new(&mut model, &self.layout, &quantize).unwrap();
        for (index, (block, hessians)) in done.blocks.iter().zip(&done.hessians).enumerate() {
            let hessians = hessians.clone();
            let mut found = quantize::Calibration { hessians, ..Default::default() };
            block.add_to(&mut found);
            block.replace_weights(&mut quantizer).unwrap();
            quantizer.quantize_group(index, &found).unwrap();
        }
        quantizer.finish().unwrap();
        model
    }

    /// The logits of a model for the first windows of 16 tokens.
    fn logits(&self, model: &Model, n_windows: usize) -> Vec<f32> {
        let options = DecoderOptions::default();
        let mut decoder = Decoder::new(model.clone(), &CpuEngine::new(2), options).unwrap();
        let windows = self.ids.chunks(16).take(n_windows);
        let logits = windows.flat_map(|window| {
            decoder.reset();
            decoder.forward(window, Logits::All).unwrap().data
        });
        logits.collect()
    }

    /// The mean over tokens of KL(full precision ‖ quantised).
    fn divergence(&self, quantized: &Model, n_windows: usize) -> f32 {
        let vocab = Roles::find(&self.model).unwrap().vocab;
        let log_softmax = |row: &[f32]| -> Vec<f64> {
            let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            row.iter().map(|x| f64::from(*x) - sum.ln()).collect()
        };
        let of_row = |(s, t): (&[f32], &[f32])| -> f64 {
            let (s, t) = (log_softmax(s), log_softmax(t));
            t.iter().zip(&s).map(|(t, s)| t.exp() * (t - s)).sum()
        };
        let student = self.logits(quantized, n_windows);
        let teacher = self.logits(&self.model, n_windows);
        let sum: f64 = student.chunks(vocab).zip(teacher.chunks(vocab)).map(of_row).sum();
        (sum / (n_windows * 16) as f64) as f32
    }
}

/// What else a calibration is told.
#[derive(Default)]
struct More<'a> {
    seed: u64,
    hessians: bool,
    workers: &'a [Worker],
    store: Option<&'a Store>,
}

/// What came of a calibration.
struct Done {
    outcome: Outcome,
    blocks: Vec<LearnedBlock>,
    hessians: Vec<Hessians>,
    steps: Vec<CalibrationProgress>,
    /// How many steps there were when each block was finished.
    finished_at: Vec<usize>,
}

impl Done {
    /// All matrices.
    fn matrices(&self) -> Vec<&Matrix> {
        let sites = self.blocks.iter().flat_map(|block| block.sites.values());
        let sites = sites.flat_map(|site| of_site(&site.transform.matrix));
        let heads = self.blocks.iter().flat_map(|block| block.attentions.values());
        sites.chain(heads.filter_map(|attention| attention.matrix.as_ref())).collect()
    }
}

/// The matrices of a site.
fn of_site(matrix: &SiteMatrix) -> Vec<&Matrix> {
    match matrix {
        SiteMatrix::Kronecker { left, right } => left.iter().chain([right]).collect(),
        SiteMatrix::Heads { across, within } => across.iter().chain(within).collect(),
        _ => Vec::new(),
    }
}

/// All transforms, and the layers' weights.
fn flat(bits: &str) -> StudentOptions {
    StudentOptions {
        bits: bits.parse().unwrap(),
        group_size: None,
        online: Online::Kronecker,
        scales: true,
        shifts: false,
        weights: true,
        gradual: None,
    }
}

/// Only what merges.
fn affine(bits: &str) -> StudentOptions {
    let (online, shifts, weights) = (Online::Nothing, true, false);
    StudentOptions { online, shifts, weights, gradual: Some(0.1), ..flat(bits) }
}

/// Seconds for a tiny model.
fn tiny(steps: usize, last_steps: usize) -> Recipe {
    let mut recipe = Recipe::fast();
    let blocks = &mut recipe.blocks;
    (blocks.windows, blocks.length, blocks.batch, blocks.steps) = (8, 16, 2, steps);
    (recipe.end_to_end.batch, recipe.end_to_end.steps) = (2, last_steps);
    recipe
}

/// Every step learns from the same windows.
fn one_batch(steps: usize, last_steps: usize) -> Recipe {
    let mut recipe = tiny(steps, last_steps);
    recipe.blocks.windows = 2;
    recipe
}

fn falls(losses: &[f32], factor: f32) -> bool {
    matches!(losses, [first, .., last] if *last < factor * first && last.is_finite())
}

#[test]
fn the_loss_of_each_block_falls_and_then_the_divergence() {
    let bench = Bench::new("llama-optimum");
    let done = bench.run(&flat("w4a4kv4"), &one_batch(20, 20), More::default()).unwrap();
    let Outcome { losses, divergences } = &done.outcome;
    assert_eq!(losses.len(), bench.layout.blocks.len());
    assert!(losses.iter().all(|l| l.len() == 20 && falls(l, 0.9)), "{losses:?}");
    assert!(divergences.len() == 20 && falls(divergences, 0.9), "{divergences:?}");
    let n_blocks = losses.len();
    assert_eq!(done.steps.len(), 20 * (n_blocks + 1));
    assert!(done.steps.iter().enumerate().all(|(i, step)| {
        step.block == i / 20 && step.step == i % 20 + 1 && step.n_blocks == n_blocks
    }));
}

#[test]
fn the_last_stage_takes_batches_of_any_size() {
    for name in ["llama-optimum", "gpt2-optimum"] {
        let bench = Bench::new(name);
        for batch in [1, 4] {
            let mut recipe = tiny(2, 2);
            recipe.end_to_end.batch = batch;
            let done = bench.run(&flat("w4a4kv4"), &recipe, More::default()).unwrap();
            assert_eq!(done.outcome.divergences.len(), 2);
        }
    }
}

#[test]
fn the_seed_decides_what_is_learned() {
    let bench = Bench::new("llama-optimum");
    let run =
        |seed| bench.run(&flat("w4a4kv4"), &tiny(4, 2), More { seed, ..More::default() }).unwrap();
    let (first, again, other) = (run(3), run(3), run(4));
    assert!(first.blocks == again.blocks, "the same seed gives the same");
    assert_eq!(first.outcome.losses, again.outcome.losses);
    assert_eq!(first.outcome.divergences, again.outcome.divergences);
    assert!(first.blocks.iter().zip(&other.blocks).all(|(a, b)| a != b));
}

/// Calibrates with a store, takes away what a run that was stopped would not have left there,
/// and goes on.
#[test]
fn blocks_learn_side_by_side_what_they_learn_in_order() {
    let bench = Bench::new("llama-optimum");
    let new = |_| Worker { engine: Box::new(CpuEngine::new(2)) };
    let workers: Vec<Worker> = (0..2).map(new).collect();
    let run = |workers| {
        let more = More { workers, ..More::default() };
        bench.run(&flat("w4a4kv4"), &tiny(4, 2), more).unwrap()
    };
    let (in_order, side_by_side) = (run(&[]), run(&workers));
    assert!(in_order.blocks == side_by_side.blocks);
    assert_eq!(in_order.outcome.losses, side_by_side.outcome.losses);
    assert_eq!(in_order.steps.len(), side_by_side.steps.len());
}

fn check_resumed(recipe: &Recipe, missing: &[&str], n_steps: usize) {
    let bench = Bench::new("llama-optimum");
    let options = flat("w4a4kv4");
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "key").unwrap();
    let stored = || More { store: Some(&store), ..More::default() };
    let whole = bench.run(&options, recipe, More::default()).unwrap();
    bench.run(&options, recipe, stored()).unwrap();
    for name in missing {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    let resumed = bench.run(&options, recipe, stored()).unwrap();
    assert!(resumed.blocks == whole.blocks, "without {missing:?}");
    assert_eq!(resumed.outcome.losses, whole.outcome.losses);
    assert_eq!(resumed.outcome.divergences, whole.outcome.divergences);
    let learned = resumed.steps.len();
    assert_eq!(learned, n_steps, "steps and finished blocks, without {missing:?}");
    for name in missing {
        assert!(folder.path().join(name).exists(), "{name} is there again");
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_as_if_it_had_not_been() {
    let last = ["end_to_end_0000.npz", "end_to_end_0001.npz"];
    check_resumed(&tiny(3, 2), &[], 2);
    check_resumed(&tiny(3, 2), &last[..1], 2 + 2);
    check_resumed(&tiny(3, 2), &last, 2 + 2);
    check_resumed(&tiny(3, 2), &["block_0001.npz", last[0], last[1]], 1 + 3 + 2);
    let mut recipe = tiny(3, 0);
    recipe.blocks.input = BlockInput::Quantized;
    check_resumed(&recipe, &["block_0001.npz"], 1 + 3);
}

#[test]
fn blocks_learn_from_what_quantised_blocks_give_them() {
    let bench = Bench::new("llama-optimum");
    let mut recipe = one_batch(20, 0);
    let usual = bench.run(&flat("w4a4kv4"), &recipe, More::default()).unwrap();
    recipe.blocks.input = BlockInput::Quantized;
    let done = bench.run(&flat("w4a4kv4"), &recipe, More::default()).unwrap();
    let (losses, usual) = (&done.outcome.losses, &usual.outcome.losses);
    assert_eq!(losses[0], usual[0], "the first block reads the same");
    assert!(falls(&losses[1], 0.9) && losses[1][0] > usual[1][0], "{losses:?} {usual:?}");
    assert!(done.outcome.divergences.is_empty());
}

#[test]
fn matrices_under_a_gradual_mask_stay_invertible() {
    let bench = Bench::new("llama-optimum");
    let mut recipe = tiny(10, 0);
    // Far too fast, so that dominance must be kept by force.
    recipe.blocks.rates.matrix = 0.5;
    let done = bench.run(&affine("w4a4kv4"), &recipe, More::default()).unwrap();
    let matrices = done.matrices();
    assert!(matrices.len() >= bench.layout.blocks.len());
    for matrix in matrices {
        let n = matrix.n_rows();
        assert!(matrix.max_difference(&Matrix::identity(n)) > 0.1, "nothing was learned");
        for i in 0..n {
            let beside: f64 = matrix.row(i).iter().map(|x| x.abs()).sum::<f64>();
            assert!(beside < 2.0 * matrix.row(i)[i].abs(), "row {i} is not dominant");
        }
        let product = matrix.times(&inverse(matrix).unwrap());
        assert!(product.max_difference(&Matrix::identity(n)) < 1e-6);
    }
    for site in done.blocks.iter().flat_map(|block| block.sites.values()) {
        assert!(!matches!(site.transform.matrix, SiteMatrix::Kronecker { .. }));
    }
}

#[test]
fn a_block_is_handed_over_while_the_next_one_learns() {
    let bench = Bench::new("llama-optimum");
    let at = |recipe: &Recipe| {
        let done = bench.run(&flat("w4a4kv4"), recipe, More::default()).unwrap();
        (done.finished_at, done.steps.len())
    };
    let (finished_at, n) = at(&tiny(3, 0));
    assert!((3..=6).contains(&finished_at[0]), "{finished_at:?}");
    assert_eq!((finished_at[1], n), (6, 6));
    // What comes after the blocks needs all of them.
    let (finished_at, n) = at(&tiny(3, 2));
    assert_eq!((finished_at, n), (vec![8, 8], 8));
}

#[test]
fn a_block_that_can_not_be_passed_on_stops_the_run() {
    let bench = Bench::new("llama-optimum");
    for (recipe, failing) in [(tiny(3, 0), 0), (tiny(3, 0), 1), (tiny(3, 2), 0)] {
        let (engine, options) = (CpuEngine::new(2), flat("w4a4kv4"));
        let mut indices = Vec::new();
        let calibration = bench.calibration(&engine, &options, &recipe, More::default());
        let error = calibration.run(&mut |_| {}, &mut |index, _, _| {
            indices.push(index);
            match index == failing {
                true => Err(QuantizeError::NoLinears("a site".into())),
                false => Ok(()),
            }
        });
        let error = error.err().unwrap();
        assert!(matches!(error, CalibrationError::Quantize(_)), "{error}");
        assert_eq!(indices, (0..=failing).collect::<Vec<_>>(), "none after the one that failed");
    }
}

#[test]
fn a_failure_before_is_told_rather_than_one_of_the_block_that_learns() {
    let bench = Bench::new("llama-optimum");
    let (engine, options, recipe) = (CpuEngine::new(2), flat("w4a4kv4"), tiny(3, 0));
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "key").unwrap();
    // The second block can't be read.
    bench.run(&options, &recipe, More { store: Some(&store), ..More::default() }).unwrap();
    std::fs::write(folder.path().join("block_0001.npz"), "nonsense").unwrap();
    let run = |fails: bool| {
        let more = More { store: Some(&store), ..More::default() };
        let calibration = bench.calibration(&engine, &options, &recipe, more);
        let result = calibration.run(&mut |_| {}, &mut |_, _, _| match fails {
            true => Err(QuantizeError::NoLinears("a site".into())),
            false => Ok(()),
        });
        result.err().unwrap()
    };
    assert!(matches!(run(true), CalibrationError::Quantize(_)));
    assert!(matches!(run(false), CalibrationError::Store { .. }));
}

#[test]
fn hessians_are_those_of_the_quantised_model() {
    let bench = Bench::new("llama-optimum");
    let options = flat("w4a8kv8");
    let more = More { hessians: true, ..More::default() };
    let done = bench.run(&options, &tiny(2, 1), more).unwrap();
    let quantized = bench.quantized(&options, &done, Rounding::Nearest);
    let windows: Vec<&[u32]> = bench.ids.chunks_exact(16).collect();
    let blocks = bench.layout.blocks.iter().zip(&done.hessians);
    let mut n_sites = 0;
    for (block, hessians) in blocks {
        let engine = CpuEngine::new(2);
        let layout = &bench.layout;
        let wanted =
            collect_hessians(&quantized, layout, &block.sites, &engine, &windows, &mut |_| {});
        let wanted = wanted.unwrap();
        for id in &block.sites {
            let (a, b) = (hessians.site(*id).unwrap(), wanted.site(*id).unwrap());
            assert_eq!(a.n_channels(), bench.layout.site(*id).channels);
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
            let pairs = a.elements().iter().zip(b.elements());
            let (difference, size) =
                (norm(&mut pairs.map(|(a, b)| a - b)), norm(&mut b.elements().iter().copied()));
            // Calibration multiplies in bfloat16, and single codes fall to the other side.
            assert!(difference < 1e-3 * size && size > 0.0, "{id:?}: {difference} of {size}");
            n_sites += 1;
        }
    }
    assert_eq!(n_sites, 8);
}

#[test]
fn gptq_with_what_was_collected_loses_less() {
    let bench = Bench::new("llama-optimum");
    // Weights that were learned are right for rounding to nearest.
    let options = StudentOptions { weights: false, ..flat("w3a16kv16") };
    let more = More { hessians: true, ..More::default() };
    let done = bench.run(&options, &tiny(2, 0), more).unwrap();
    let loss = |rounding| bench.divergence(&bench.quantized(&options, &done, rounding), 8);
    let (gptq, nearest) = (loss(Rounding::GPTQ), loss(Rounding::Nearest));
    assert!(gptq < nearest, "{gptq} {nearest}");
}

#[test]
fn a_text_that_is_too_short_is_told() {
    let mut bench = Bench::new("llama-optimum");
    bench.ids.truncate(31);
    let error = bench.run(&flat("w4a4kv4"), &tiny(1, 0), More::default()).err().unwrap();
    assert!(
        matches!(error, CalibrationError::TooShort { tokens: 31, batch: 2, length: 16 }),
        "{error}"
    );
    let mut bench = Bench::new("llama-optimum");
    bench.ids.truncate(64);
    // Enough for the blocks, but not for the last stage.
    let mut recipe = tiny(1, 1);
    recipe.end_to_end.batch = 6;
    let error = bench.run(&flat("w4a4kv4"), &recipe, More::default()).err().unwrap();
    assert!(
        matches!(error, CalibrationError::TooShort { tokens: 64, batch: 6, length: 16 }),
        "{error}"
    );
}

/// Learns for two steps and quantises; returns the divergence that the last stage saw and that of
/// the quantised model, both per token of the first two windows.
fn divergences(bench: &Bench, options: &StudentOptions) -> Result<(f32, f32), CalibrationError> {
    let mut recipe = one_batch(2, 1);
    // It measures only.
    recipe.end_to_end.rates = Rates { matrix: 0.0, scale: 0.0, clip: 0.0, weight: 0.0 };
    let done = bench.run(options, &recipe, More::default())?;
    let quantized = bench.quantized(options, &done, Rounding::Nearest);
    Ok((done.outcome.divergences[0], bench.divergence(&quantized, 2)))
}

/// Checks that both divergences agree.
fn check_divergences(name: &str, bench: &Bench, options: &StudentOptions) {
    let (seen, true_one) =
        divergences(bench, options).unwrap_or_else(|error| panic!("{name} {options:?}: {error}"));
    // Calibration multiplies in bfloat16.
    let agree = (seen - true_one).abs() < 0.02 * true_one + 1e-5;
    assert!(agree, "{name} {options:?}: {seen}, not {true_one}");
}

#[test]
fn any_widths_can_be_learned() {
    for name in ["llama-optimum", "gpt2-optimum"] {
        let bench = Bench::new(name);
        for (bits, group_size) in [
            ("w16a16kv16", None),
            ("w16a16kv4", None),
            ("w16a4kv16", None),
            ("w2a16kv16", None),
            ("w3a16kv16", Some(16)),
            ("w4a4kv8", Some(32)),
            ("w8a8kv4", None),
        ] {
            for options in [flat(bits), affine(bits)] {
                let scales = StudentOptions { scales: false, ..options.clone() };
                for options in [options, scales] {
                    let options = StudentOptions { group_size, ..options };
                    check_divergences(name, &bench, &options);
                }
            }
        }
    }
}

#[test]
fn what_any_exported_model_learns_is_what_its_quantised_model_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny");
    let mut n_models = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let bench = Bench::new(&name);
        // What sends tokens to experts has no gradient, and is refused by name.
        if ["mixtral", "olmoe", "qwen2moe"].iter().any(|mixture| name.starts_with(mixture)) {
            let error = divergences(&bench, &flat("w4a4kv4")).unwrap_err().to_string();
            assert!(error.contains("there is no gradient rule for"), "{name}: {error}");
            continue;
        }
        for options in [flat("w4a4kv4"), affine("w4a4kv4"), flat("w3a16kv16")] {
            check_divergences(&name, &bench, &options);
        }
        n_models += 1;
    }
    assert!(n_models >= 10);
}

/// Adds an offset to some channels of what the sites read, as models of the OPT family have it,
/// and takes it away in the biases behind: the model computes what it did.
fn with_offsets(mut bench: Bench) -> Bench {
    let mut set = TransformSet::identity(&bench.layout);
    for id in bench.layout.site_ids() {
        if bench.layout.takes_shift(&bench.model.graph, id) {
            let offset = |j: usize| if j.is_multiple_of(7) { 15.0 - j as f64 } else { 0.0 };
            set.sites[id.0].shift = Some((0..bench.layout.site(id).channels).map(offset).collect());
        }
    }
    insert_transforms(&mut bench.model, &bench.layout, &set).unwrap();
    bench.layout = Layout::new(&bench.model).unwrap();
    bench
}

#[test]
fn shifts_take_the_offsets_of_channels_away() {
    let bench = with_offsets(Bench::new("gpt2-optimum"));
    for (bits, scales) in [("w8a4kv16", true), ("w8a4kv16", false), ("w4a4kv4", true)] {
        let with = StudentOptions { scales, ..affine(bits) };
        check_divergences("gpt2 with offsets", &bench, &with);
        let without = StudentOptions { shifts: false, ..with.clone() };
        let [with, without] = [&with, &without].map(|options| {
            let done = bench.run(options, &one_batch(2, 0), More::default()).unwrap();
            bench.divergence(&bench.quantized(options, &done, Rounding::Nearest), 2)
        });
        assert!(with < 0.2 * without, "{bits}, scales {scales}: {with}, without shifts {without}");
    }
}
