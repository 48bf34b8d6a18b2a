//! Learning on a GPU, where there is one, against learning on the CPU.

use std::sync::{Mutex, MutexGuard, PoisonError};

use planish_cuda::{Element, testing};
use planish_passes::calibrate::cut_block;

use super::super::block::learn_block;
use super::super::capture::{Captured, capture};
use super::super::end_to_end::Corpus;
use super::super::learner::Learner;
use super::super::pipeline::Pupil;
use super::super::states::States;
use super::*;
use crate::engine::cuda::CudaEngine;

/// An engine on the GPU, for one test at a time.
fn engine() -> Option<(CudaEngine, MutexGuard<'static, ()>)> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    testing::gpu().map(|gpu| (CudaEngine::on(gpu, Element::F32, 2), turn))
}

/// Losses of the GPU must follow those of the CPU: the first closely, and each half in the mean.
/// Single losses do not: a code that falls to the other side sends learning another way.
fn check_losses(what: &str, gpu: &[f32], cpu: &[f32]) {
    assert_eq!(gpu.len(), cpu.len(), "{what}");
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let half = gpu.len() / 2;
    for (part, tolerance) in [(0..1, 0.05), (0..half, 0.1), (half..gpu.len(), 0.2)] {
        let (a, b) = (mean(&gpu[part.clone()]), mean(&cpu[part.clone()]));
        let near = (a - b).abs() <= tolerance * b.abs();
        assert!(near, "{what}, steps {part:?}: {a}, not {b}\n{gpu:?}\n{cpu:?}");
    }
}

/// A recipe that learns slowly, so that two runs stay near each other.
fn slow(steps: usize, last_steps: usize) -> Recipe {
    let mut recipe = tiny(steps, last_steps);
    for rates in [&mut recipe.blocks.rates, &mut recipe.end_to_end.rates] {
        let Rates { matrix, scale, clip, weight } = rates;
        [matrix, scale, clip, weight].into_iter().for_each(|rate| *rate /= 4.0);
    }
    recipe
}

/// A calibration on one engine under way.
struct Side<'a> {
    calibration: Calibration<'a>,
    captured: Captured,
    /// What each block reads in full precision, then what the last gives.
    states: Vec<States>,
    pupils: Vec<Pupil>,
}

impl<'a> Side<'a> {
    fn new(
        bench: &'a Bench,
        engine: &'a dyn Engine,
        options: &'a StudentOptions,
        recipe: &'a Recipe,
    ) -> Self {
        let (ids, layout, model) = (&bench.ids, &bench.layout, &bench.model);
        let (workers, store, seed, hessians) = (&[], None, 0, false);
        let calibration = Calibration {
            engine,
            model,
            layout,
            options,
            recipe,
            ids,
            seed,
            hessians,
            workers,
            store,
        };
        let blocks: Vec<_> =
            (0..layout.blocks.len()).map(|i| cut_block(model, layout, i).unwrap()).collect();
        let BlockRecipe { windows, length, batch, .. } = recipe.blocks;
        let windows: Vec<&[u32]> = ids.chunks_exact(length).take(windows).collect();
        let captured = capture(engine, model, &blocks, &windows, batch).unwrap();
        let mut states = vec![captured.states.clone()];
        for block in &blocks {
            let inputs = &states[states.len() - 1];
            states.push(calibration.teach(block, inputs, &captured.outside).unwrap());
        }
        Self { calibration, captured, states, pupils: Vec::new() }
    }

    fn prepare(&mut self) {
        for (index, states) in self.states[..self.states.len() - 1].iter().enumerate() {
            let Calibration { model, layout, engine, .. } = self.calibration;
            let block = cut_block(model, layout, index).unwrap();
            let outside = &self.captured.outside;
            let pupil = self.calibration.pupil(engine, index, &block, states, outside);
            self.pupils.push(pupil.unwrap());
        }
    }

    /// The same parameters as on the other side.
    fn take_over(&mut self, other: &Side<'_>) {
        let (own, its) = (self.calibration.engine.device(), other.calibration.engine.device());
        let pupils = other.pupils.iter().map(|pupil| {
            let values = pupil.learner.tensors(&*its).unwrap();
            let values: Vec<Vec<f32>> = values.iter().map(|t| t.to_f32_vec().unwrap()).collect();
            let student = pupil.student.clone();
            let mut learner = Learner::new(&*own, &student.parameters).unwrap();
            assert!(learner.restore(&*own, &values).unwrap());
            Pupil { student, learner }
        });
        self.pupils = pupils.collect();
    }

    fn learn(&mut self, block: usize) -> Vec<f32> {
        let (inputs, targets) = (&self.states[block], &self.states[block + 1]);
        let lesson = self.calibration.lesson(block, inputs, targets, &self.captured.outside);
        let Pupil { student, learner } = &mut self.pupils[block];
        let (engine, recipe) = (self.calibration.engine, &self.calibration.recipe.blocks);
        learn_block(engine, student, learner, recipe, &lesson, &mut |_, _| {}).unwrap()
    }

    fn learn_together(&mut self) -> Vec<f32> {
        let (first, last) = (&self.states[0], &self.states[self.states.len() - 1]);
        let corpus = Corpus { first, last, seed: 5 };
        let outside = &self.captured.outside;
        let pupils = &mut self.pupils;
        self.calibration.learn_together(pupils, &corpus, outside, &mut |_| {}).unwrap()
    }
}

/// From the same start, with the same batches.
fn check(bench: &Bench, options: &StudentOptions, recipe: &Recipe, what: &str) {
    let Some((engine, _turn)) = engine() else { return };
    let host = CpuEngine::new(2);
    let mut cpu = Side::new(bench, &host, options, recipe);
    let mut gpu = Side::new(bench, &engine, options, recipe);
    cpu.prepare();
    gpu.take_over(&cpu);
    for block in 0..cpu.pupils.len() {
        let (of_gpu, of_cpu) = (gpu.learn(block), cpu.learn(block));
        check_losses(&format!("{what}, block {block}"), &of_gpu, &of_cpu);
    }
    gpu.take_over(&cpu);
    let (of_gpu, of_cpu) = (gpu.learn_together(), cpu.learn_together());
    check_losses(&format!("{what}, all blocks"), &of_gpu, &of_cpu);
}

#[test]
fn blocks_and_the_whole_model_learn_on_cuda_as_on_the_cpu() {
    let grouped = StudentOptions { group_size: Some(16), ..flat("w4a16kv16") };
    for options in [flat("w4a8kv8"), grouped, affine("w4a8kv8")] {
        for name in ["llama-optimum", "gpt2-optimum"] {
            check(&Bench::new(name), &options, &slow(20, 20), &format!("{name}, {options:?}"));
        }
    }
}

/// Of windows that are long enough for the kernels that learning has of its own.
#[test]
fn long_windows_are_learned_as_on_the_cpu() {
    let mut bench = Bench::new("llama-optimum");
    bench.ids = (0..8 * 128).map(|i| bench.ids[i * 7 % bench.ids.len()]).collect();
    let mut recipe = slow(12, 8);
    (recipe.blocks.windows, recipe.blocks.length, recipe.blocks.batch) = (8, 128, 4);
    check(&bench, &flat("w4a8kv8"), &recipe, "long windows");
}

#[test]
fn a_run_on_cuda_goes_on_where_it_was_stopped() {
    let Some((engine, _turn)) = engine() else { return };
    let bench = Bench::new("llama-optimum");
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "key").unwrap();
    let mut recipe = tiny(6, 2);
    recipe.blocks.input = BlockInput::Quantized;
    let run = || {
        let more = More { store: Some(&store), hessians: true, ..More::default() };
        bench.run_on(&engine, &flat("w4a4kv4"), &recipe, more).unwrap()
    };
    let whole = run();
    let missing = ["block_0001.npz", "end_to_end_0000.npz"];
    for name in missing {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    let resumed = run();
    assert_eq!(resumed.outcome.losses[0], whole.outcome.losses[0]);
    assert_eq!(resumed.blocks[0].sites.len(), whole.blocks[0].sites.len());
    assert!(missing.iter().all(|name| folder.path().join(name).exists()));
}
