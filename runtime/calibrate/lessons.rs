//! What a block learns from, and learning it.

use std::collections::HashMap;
use std::time::Instant;

use planish_ir::{Model, Tensor};
use planish_kernels::ProductPrecision;
use planish_passes::PassManager;
use planish_passes::calibrate::{
    BlockModel, CalibrateError, Initial, ObservedBlock, Statistics, Student,
};
use planish_passes::lower::{LowerOptions, lower};
use planish_passes::quantize::{Hessians, add_gram};

use super::block::{Lesson, learn_block, masks};
use super::learner::Learner;
use super::pipeline::{Calibration, CalibrationProgress, Pupil, Report};
use super::runner::{Runner, RunnerOptions, pool_of_steps};
use super::start::start_weight_clips;
use super::states::States;
use super::store::Finished;
use super::{CalibrationError, floats};
use crate::engine::{Device, Engine, Value};

/// Tokens that ranges and moments are taken of.
const STATISTICS_TOKENS: usize = 16_384;

/// How full-precision blocks are lowered.
const NO_CACHE: LowerOptions = LowerOptions { cache: false, no_padding: true };

impl Calibration<'_> {
    /// What the block gives in full precision.
    pub(super) fn teach(
        &self,
        block: &BlockModel,
        inputs: &States,
        outside: &HashMap<String, Value>,
    ) -> Result<States, CalibrationError> {
        let mut model = block.model.clone();
        lower(&mut model, NO_CACHE, &mut PassManager::new()).map_err(CalibrateError::from)?;
        let mut targets = inputs.empty_like();
        let all = inputs.n_windows();
        self.run_block(self.engine, (block, &model), inputs, outside, all, &mut |outputs| {
            targets.push(&*self.engine.device(), &outputs[0])
        })?;
        Ok(targets)
    }

    /// Ranges and moments of what the block reads, on some of the windows.
    pub(super) fn observe(
        &self,
        engine: &dyn Engine,
        block: &BlockModel,
        inputs: &States,
        outside: &HashMap<String, Value>,
    ) -> Result<Statistics, CalibrationError> {
        let observed = ObservedBlock::new(block, self.options);
        let mut statistics = Statistics::default();
        let length = self.recipe.blocks.length.max(1);
        let some = STATISTICS_TOKENS.div_ceil(length).min(inputs.n_windows());
        let device = engine.device();
        self.run_block(engine, (block, &observed.model), inputs, outside, some, &mut |outputs| {
            let outputs = downloaded(&*device, outputs)?;
            observed.update(&mut statistics, &outputs).map_err(|error| CalibrationError::Value {
                value: "an activation".into(),
                problem: error.to_string(),
            })
        })?;
        Ok(statistics)
    }

    /// Runs a full-precision form of a block on the first windows, batch by batch.
    pub(super) fn run_block(
        &self,
        engine: &dyn Engine,
        (block, model): (&BlockModel, &Model),
        inputs: &States,
        outside: &HashMap<String, Value>,
        n_windows: usize,
        take: &mut dyn FnMut(&[Value]) -> Result<(), CalibrationError>,
    ) -> Result<(), CalibrationError> {
        // What 4-bit activations lose is far more than what bfloat16 does.
        let precision = match self.options.bits.activations {
            0..=4 => ProductPrecision::BF16,
            _ => ProductPrecision::F32,
        };
        let options = RunnerOptions {
            precision,
            fixed: outside,
            parameters: Vec::new(),
            buffers: pool_of_steps(),
        };
        let mut runner = Runner::new(engine, model, options)?;
        let device = &*engine.device();
        let input = &block.model.graph.value(block.input).name;
        let batch = self.recipe.blocks.batch;
        for first in (0..n_windows).step_by(batch) {
            let windows: Vec<usize> = (first..first + batch).collect();
            let x = inputs.batch(device, &windows)?;
            take(&runner.run(&|name| (name == input).then(|| x.clone()))?)?;
        }
        Ok(())
    }

    /// A block with its parameters at their start.
    pub(super) fn pupil(
        &self,
        engine: &dyn Engine,
        index: usize,
        block: &BlockModel,
        inputs: &States,
        outside: &HashMap<String, Value>,
    ) -> Result<Pupil, CalibrationError> {
        let statistics = self.observe(engine, block, inputs, outside)?;
        self.pupil_of(engine, self.student(index, block, statistics)?)
    }

    /// A block with parameters that start from what was observed. Takes nothing of an engine.
    pub(super) fn student(
        &self,
        index: usize,
        block: &BlockModel,
        statistics: Statistics,
    ) -> Result<Student, CalibrationError> {
        let start = Instant::now();
        let mut initial = Initial::new(self.seed.wrapping_add(index as u64));
        initial.statistics = statistics;
        let student = Student::new(block, self.options, &mut initial)?;
        tracing::info!("block {index} prepared: {:.2?}", start.elapsed());
        Ok(student)
    }

    /// The parameters of a student where an engine keeps tensors, at their start.
    pub(super) fn pupil_of(
        &self,
        engine: &dyn Engine,
        student: Student,
    ) -> Result<Pupil, CalibrationError> {
        let mut learner = Learner::new(&*engine.device(), &student.parameters)?;
        start_weight_clips(engine, &student, &mut learner, self.options)?;
        Ok(Pupil { student, learner })
    }

    /// What a block learns from.
    pub(super) fn lesson<'a>(
        &self,
        block: usize,
        inputs: &'a States,
        targets: &'a States,
        outside: &'a HashMap<String, Value>,
    ) -> Lesson<'a> {
        let seed = self.seed.wrapping_add(1000 + block as u64);
        Lesson { block, inputs, targets, outside, seed }
    }

    /// Learns a block, or takes over what was learned before.
    pub(super) fn learn(
        &self,
        engine: &dyn Engine,
        pupil: &mut Pupil,
        lesson: &Lesson<'_>,
        progress: &mut Report<'_>,
    ) -> Result<Vec<f32>, CalibrationError> {
        let name = format!("block_{:04}", lesson.block);
        let (n_steps, n_blocks) = (self.recipe.blocks.steps, self.layout.blocks.len());
        let mut report = |step, loss| {
            progress(CalibrationProgress { block: lesson.block, n_blocks, step, n_steps, loss });
        };
        let before = self.store.map_or(Ok(None), |store| store.load(&name))?;
        if let Some(finished) = before
            && pupil.learner.restore(&*engine.device(), &finished.values)?
        {
            report(n_steps, finished.losses.last().copied().unwrap_or(0.0));
            return Ok(finished.losses);
        }
        let start = Instant::now();
        let Pupil { student, learner } = pupil;
        let recipe = &self.recipe.blocks;
        let losses = learn_block(engine, student, learner, recipe, lesson, &mut report)?;
        tracing::info!("block {} learned: {:.2?}", lesson.block, start.elapsed());
        self.save(&name, pupil, &losses)?;
        Ok(losses)
    }

    pub(super) fn save(
        &self,
        name: &str,
        pupil: &Pupil,
        losses: &[f32],
    ) -> Result<(), CalibrationError> {
        let Some(store) = self.store else { return Ok(()) };
        let tensors = pupil.learner.tensors(&*self.engine.device())?;
        let values = tensors.iter().map(|tensor| floats(tensor, "a parameter"));
        let values = values.collect::<Result<_, _>>()?;
        store.save(name, &Finished { values, losses: losses.to_vec() })
    }

    /// Σ xᵀx of what the layers of each site of a quantised block read, for the states that the
    /// quantised blocks before it give; the states are replaced by what it gives.
    pub(super) fn hessians_of(
        &self,
        pupil: &Pupil,
        states: &mut States,
        outside: &HashMap<String, Value>,
    ) -> Result<Hessians, CalibrationError> {
        let mut model = pupil.student.model.clone();
        let mut sites = Vec::new();
        for (site, reading) in &pupil.student.readings {
            let channels = self.layout.site(*site).channels;
            let gram = add_gram(&mut model.graph, *reading, channels, "gram");
            model.graph.outputs.push(gram);
            sites.push(*site);
        }
        let (mut hessians, device) = (Hessians::default(), self.engine.device());
        self.advance(pupil, &model, states, outside, &mut |grams| {
            for (site, gram) in sites.iter().zip(&downloaded(&*device, grams)?) {
                hessians.update(*site, gram).map_err(|error| CalibrationError::Value {
                    value: "a Hessian".into(),
                    problem: error.to_string(),
                })?;
            }
            Ok(())
        })?;
        Ok(hessians)
    }

    /// Replaces the states by what the quantised block, `model`, makes of them; `also` sees what
    /// else it gives for every batch.
    pub(super) fn advance(
        &self,
        pupil: &Pupil,
        model: &Model,
        states: &mut States,
        outside: &HashMap<String, Value>,
        also: &mut dyn FnMut(&[Value]) -> Result<(), CalibrationError>,
    ) -> Result<(), CalibrationError> {
        let input = &model.graph.value(pupil.student.input).name;
        let options = RunnerOptions {
            precision: ProductPrecision::BF16,
            fixed: outside,
            parameters: pupil.learner.names(),
            buffers: pool_of_steps(),
        };
        let mut runner = Runner::new(self.engine, model, options)?;
        let device = &*self.engine.device();
        let (batch, masks) = (self.recipe.blocks.batch, masks(&pupil.student, 1.0));
        for first in (0..states.n_windows()).step_by(batch) {
            let windows: Vec<usize> = (first..first + batch).collect();
            let x = states.batch(device, &windows)?;
            let outputs = runner.run(&|name| match name {
                _ if name == input => Some(x.clone()),
                _ => masks.get(name).cloned().or_else(|| pupil.learner.value(name)),
            })?;
            states.replace(device, &windows, &outputs[0])?;
            also(&outputs[1..])?;
        }
        Ok(())
    }
}

fn downloaded(device: &dyn Device, values: &[Value]) -> Result<Vec<Tensor>, CalibrationError> {
    values.iter().map(|value| Ok(device.download(value)?)).collect()
}
