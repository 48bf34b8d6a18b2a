//! Learning all blocks of a model, one after the other.

use std::collections::HashMap;

use planish_cpu::ThreadPool;
use planish_ir::{Model, Tensor};
use planish_kernels::ProductPrecision;
use planish_passes::PassManager;
use planish_passes::calibrate::{
    BlockModel, CalibrateError, Initial, LearnedBlock, ObservedBlock, Statistics, Student,
    StudentOptions, cut_block, cut_tail,
};
use planish_passes::lower::{LowerOptions, lower};
use planish_passes::quantize::{Hessians, QuantizeError, add_gram};
use planish_passes::sites::Layout;

use super::block::{Lesson, learn_block, masks};
use super::capture::capture;
use super::end_to_end::{Corpus, EndToEnd};
use super::learner::Learner;
use super::recipe::{BlockInput, Recipe};
use super::runner::{Runner, pool_of_steps};
use super::start::start_weight_clips;
use super::states::States;
use super::store::{Finished, Store};
use super::{CalibrationError, floats};
use crate::engine::Engine;

/// Tokens that ranges and moments are taken of.
const STATISTICS_TOKENS: usize = 16_384;

/// How full-precision blocks are lowered.
const NO_CACHE: LowerOptions = LowerOptions { cache: false, no_padding: true };

/// A calibration to be done.
pub struct Calibration<'a> {
    /// What runs the graphs.
    pub engine: &'a dyn Engine,
    /// Threads for everything else.
    pub pool: &'a ThreadPool,
    /// The canonical model.
    pub model: &'a Model,
    /// Its layout.
    pub layout: &'a Layout,
    /// What is put into the blocks.
    pub options: &'a StudentOptions,
    /// How much is learned.
    pub recipe: &'a Recipe,
    /// The calibration text.
    pub ids: &'a [u32],
    /// Seed of starting matrices and of the order of windows.
    pub seed: u64,
    /// Whether the Hessians of the sites are collected, for GPTQ.
    pub hessians: bool,
    /// Where finished blocks are kept; nothing keeps none.
    pub store: Option<&'a Store>,
}

/// How far a calibration has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationProgress {
    /// The block under way, from 0; `n_blocks` when all learn together.
    pub block: usize,
    /// Blocks in all.
    pub n_blocks: usize,
    /// Steps of the block that are done.
    pub step: usize,
    /// Steps of a block.
    pub n_steps: usize,
    /// The loss of the last step.
    pub loss: f32,
}

/// A block under calibration.
pub(super) struct Pupil {
    pub student: Student,
    pub learner: Learner,
}

/// How a calibration went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The loss of every step of every block: the mean squared error of its output.
    pub losses: Vec<Vec<f32>>,
    /// The KL divergence per token of every step of the last stage.
    pub divergences: Vec<f32>,
}

impl Calibration<'_> {
    /// Learns all blocks, then calls `finished` for each, in order, with its number, what was
    /// learned, and the Hessians of its sites if they were asked for.
    ///
    /// # Errors
    /// If the text is too short, a block can't be cut out, differentiated or run, or the store
    /// can't be used.
    pub fn run(
        &self,
        progress: &mut dyn FnMut(CalibrationProgress),
        finished: &mut dyn FnMut(usize, LearnedBlock, Hessians) -> Result<(), QuantizeError>,
    ) -> Result<Outcome, CalibrationError> {
        let recipe = &self.recipe.blocks;
        let n_blocks = self.layout.blocks.len();
        let blocks: Vec<BlockModel> = (0..n_blocks)
            .map(|i| cut_block(self.model, self.layout, i))
            .collect::<Result<_, _>>()?;
        let windows = self.windows()?;
        let captured = capture(self.engine, self.model, &blocks, &windows, recipe.batch)?;
        let outside = &captured.outside;
        let (mut teacher, mut pupils, mut losses) =
            (captured.states.clone(), Vec::new(), Vec::new());
        let mut own = (recipe.input == BlockInput::Quantized).then(|| teacher.clone());
        for (index, block) in blocks.iter().enumerate() {
            let targets = self.teach(block, &teacher, outside)?;
            let statistics = self.observe(block, &teacher, outside)?;
            let mut pupil = self.pupil(index, block, statistics)?;
            let lesson = Lesson {
                block: index,
                inputs: own.as_ref().unwrap_or(&teacher),
                targets: &targets,
                outside,
                seed: self.seed.wrapping_add(1000 + index as u64),
            };
            losses.push(self.learn(&mut pupil, &lesson, n_blocks, progress)?);
            if let Some(states) = own.as_mut().filter(|_| index + 1 < n_blocks) {
                self.advance(&pupil, &pupil.student.model, states, outside, &mut |_| Ok(()))?;
            }
            pupils.push(pupil);
            teacher = targets;
        }
        drop(own);
        let corpus =
            Corpus { first: &captured.states, last: &teacher, seed: self.seed.wrapping_add(9000) };
        let divergences = self.learn_together(&mut pupils, &corpus, outside, progress)?;
        let mut states = captured.states;
        for (index, pupil) in pupils.iter().enumerate() {
            let learned = LearnedBlock::new(&pupil.student, &pupil.learner.tensors())?;
            let hessians = match self.hessians {
                true => self.hessians_of(pupil, &mut states, outside)?,
                false => Hessians::default(),
            };
            finished(index, learned, hessians)?;
        }
        Ok(Outcome { losses, divergences })
    }

    /// Σ xᵀx of what the layers of each site of a quantised block read, for the states that the
    /// quantised blocks before it give; the states are replaced by what it gives.
    fn hessians_of(
        &self,
        pupil: &Pupil,
        states: &mut States,
        outside: &HashMap<String, Tensor>,
    ) -> Result<Hessians, CalibrationError> {
        let mut model = pupil.student.model.clone();
        let mut sites = Vec::new();
        for (site, reading) in &pupil.student.readings {
            let channels = self.layout.site(*site).channels;
            let gram = add_gram(&mut model.graph, *reading, channels, "gram");
            model.graph.outputs.push(gram);
            sites.push(*site);
        }
        let mut hessians = Hessians::default();
        self.advance(pupil, &model, states, outside, &mut |grams| {
            for (site, gram) in sites.iter().zip(grams) {
                hessians.update(*site, gram).map_err(|error| CalibrationError::Value {
                    value: "a Hessian".into(),
                    problem: error.to_string(),
                })?;
            }
            Ok(())
        })?;
        Ok(hessians)
    }

    /// A block with its parameters at their start.
    fn pupil(
        &self,
        index: usize,
        block: &BlockModel,
        statistics: Statistics,
    ) -> Result<Pupil, CalibrationError> {
        let mut initial = Initial::new(self.seed.wrapping_add(index as u64));
        initial.statistics = statistics;
        let student = Student::new(block, self.options, &mut initial)?;
        let mut learner = Learner::new(&student.parameters)?;
        start_weight_clips(self.engine, &student, &mut learner, self.options)?;
        Ok(Pupil { student, learner })
    }

    /// The last stage, if the recipe has it.
    fn learn_together(
        &self,
        pupils: &mut [Pupil],
        corpus: &Corpus<'_>,
        outside: &HashMap<String, Tensor>,
        progress: &mut dyn FnMut(CalibrationProgress),
    ) -> Result<Vec<f32>, CalibrationError> {
        let recipe = self.recipe.end_to_end;
        if recipe.steps == 0 {
            return Ok(Vec::new());
        }
        let n_blocks = pupils.len();
        let name = |block: usize| format!("end_to_end_{block:04}");
        let before = self.restore_all(pupils, &name)?;
        if let Some(losses) = before {
            return Ok(losses);
        }
        let tail = cut_tail(self.model, self.layout)?;
        let mut whole = EndToEnd::new(self.engine, self.pool, recipe, pupils, &tail, outside)?;
        let losses = whole.learn(pupils, corpus, &mut |step, loss| {
            let (block, n_steps) = (n_blocks, recipe.steps);
            progress(CalibrationProgress { block, n_blocks, step, n_steps, loss });
        })?;
        // In reverse, so that the first file says that all are there.
        for (block, pupil) in pupils.iter().enumerate().rev() {
            self.save(&name(block), pupil, &losses)?;
        }
        Ok(losses)
    }

    /// Takes over what the last stage learned before; nothing if it was not finished.
    fn restore_all(
        &self,
        pupils: &mut [Pupil],
        name: &dyn Fn(usize) -> String,
    ) -> Result<Option<Vec<f32>>, CalibrationError> {
        let Some(store) = self.store else { return Ok(None) };
        let Some(first) = store.load(&name(0))? else { return Ok(None) };
        for (block, pupil) in pupils.iter_mut().enumerate() {
            let finished = store.load(&name(block))?;
            if !finished.is_some_and(|f| pupil.learner.restore(&f.values)) {
                return Ok(None);
            }
        }
        Ok(Some(first.losses))
    }

    fn save(&self, name: &str, pupil: &Pupil, losses: &[f32]) -> Result<(), CalibrationError> {
        let Some(store) = self.store else { return Ok(()) };
        let values = pupil.learner.parameters().iter().map(|p| p.values().to_vec()).collect();
        store.save(name, &Finished { values, losses: losses.to_vec() })
    }

    /// The windows of the text, as many as the recipe says and the text has, a whole number of
    /// batches.
    fn windows(&self) -> Result<Vec<&[u32]>, CalibrationError> {
        let recipe = &self.recipe.blocks;
        let mut windows: Vec<&[u32]> =
            self.ids.chunks_exact(recipe.length).take(recipe.windows).collect();
        windows.truncate(windows.len() / recipe.batch * recipe.batch);
        let batch = self.recipe.largest_batch();
        if windows.len() < batch {
            let (tokens, length) = (self.ids.len(), recipe.length);
            return Err(CalibrationError::TooShort { tokens, batch, length });
        }
        Ok(windows)
    }

    /// What the block gives in full precision.
    fn teach(
        &self,
        block: &BlockModel,
        inputs: &States,
        outside: &HashMap<String, Tensor>,
    ) -> Result<States, CalibrationError> {
        let mut model = block.model.clone();
        lower(&mut model, NO_CACHE, &mut PassManager::new()).map_err(CalibrateError::from)?;
        let mut targets = inputs.empty_like();
        let all = inputs.n_windows();
        self.run_block(block, &model, inputs, outside, all, &mut |outputs| {
            targets.push(&floats(&outputs[0], "a block's output")?);
            Ok(())
        })?;
        Ok(targets)
    }

    /// Ranges and moments of what the block reads, on some of the windows.
    fn observe(
        &self,
        block: &BlockModel,
        inputs: &States,
        outside: &HashMap<String, Tensor>,
    ) -> Result<Statistics, CalibrationError> {
        let observed = ObservedBlock::new(block);
        let mut statistics = Statistics::default();
        let length = self.recipe.blocks.length.max(1);
        let some = STATISTICS_TOKENS.div_ceil(length).min(inputs.n_windows());
        self.run_block(block, &observed.model, inputs, outside, some, &mut |outputs| {
            observed.update(&mut statistics, outputs).map_err(|error| CalibrationError::Value {
                value: "an activation".into(),
                problem: error.to_string(),
            })
        })?;
        Ok(statistics)
    }

    /// Runs a full-precision form of a block on the first windows, batch by batch.
    fn run_block(
        &self,
        block: &BlockModel,
        model: &Model,
        inputs: &States,
        outside: &HashMap<String, Tensor>,
        n_windows: usize,
        take: &mut dyn FnMut(&[Tensor]) -> Result<(), CalibrationError>,
    ) -> Result<(), CalibrationError> {
        // What 4-bit activations lose is far more than what bfloat16 does.
        let precision = match self.options.bits.activations {
            0..=4 => ProductPrecision::BF16,
            _ => ProductPrecision::F32,
        };
        let mut runner = Runner::new(self.engine, model, precision, outside, pool_of_steps())?;
        let input = &block.model.graph.value(block.input).name;
        let batch = self.recipe.blocks.batch;
        for first in (0..n_windows).step_by(batch) {
            let windows: Vec<usize> = (first..first + batch).collect();
            let x = inputs.batch(&windows);
            take(&runner.run(&|name| (name == input).then(|| x.clone()))?)?;
        }
        Ok(())
    }

    /// Learns a block, or takes over what was learned before.
    fn learn(
        &self,
        pupil: &mut Pupil,
        lesson: &Lesson<'_>,
        n_blocks: usize,
        progress: &mut dyn FnMut(CalibrationProgress),
    ) -> Result<Vec<f32>, CalibrationError> {
        let name = format!("block_{:04}", lesson.block);
        let n_steps = self.recipe.blocks.steps;
        let mut report = |step, loss| {
            progress(CalibrationProgress { block: lesson.block, n_blocks, step, n_steps, loss });
        };
        let before = self.store.map_or(Ok(None), |store| store.load(&name))?;
        if let Some(finished) = before.filter(|f| pupil.learner.restore(&f.values)) {
            report(n_steps, finished.losses.last().copied().unwrap_or(0.0));
            return Ok(finished.losses);
        }
        let Pupil { student, learner } = pupil;
        let recipe = &self.recipe.blocks;
        let losses =
            learn_block(self.engine, self.pool, student, learner, recipe, lesson, &mut report)?;
        self.save(&name, pupil, &losses)?;
        Ok(losses)
    }

    /// Replaces the states by what the quantised block, `model`, makes of them; `also` sees what
    /// else it gives for every batch.
    fn advance(
        &self,
        pupil: &Pupil,
        model: &Model,
        states: &mut States,
        outside: &HashMap<String, Tensor>,
        also: &mut dyn FnMut(&[Tensor]) -> Result<(), CalibrationError>,
    ) -> Result<(), CalibrationError> {
        let input = &model.graph.value(pupil.student.input).name;
        let mut runner =
            Runner::new(self.engine, model, ProductPrecision::BF16, outside, pool_of_steps())?;
        let (batch, masks) = (self.recipe.blocks.batch, masks(&pupil.student, 1.0));
        for first in (0..states.n_windows()).step_by(batch) {
            let windows: Vec<usize> = (first..first + batch).collect();
            let x = states.batch(&windows);
            let outputs = runner.run(&|name| match name {
                _ if name == input => Some(x.clone()),
                _ => masks.get(name).cloned().or_else(|| pupil.learner.tensor(name)),
            })?;
            let y = outputs.first().and_then(|y| y.to_f32_vec().ok()).unwrap_or_default();
            states.replace(&windows, &y);
            also(&outputs[1..])?;
        }
        Ok(())
    }
}
