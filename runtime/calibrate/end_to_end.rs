//! Learning all blocks together: the KL divergence of the quantised model's logits to those of
//! the full-precision model (OSTQuant, arXiv 2501.13987, and others minimise it too).
//!
//! Only the states between blocks are kept of the forward pass; each block is run again on the
//! way back, so that memory grows with the number of blocks times the size of a hidden state.

use std::collections::HashMap;
use std::sync::Arc;

use planish_ir::Model;
use planish_kernels::ProductPrecision;
use planish_passes::calibrate::{BlockModel, Divergence, Objective, Target};

use super::CalibrationError;
use super::batches::Batches;
use super::block::masks;
use super::losses::Losses;
use super::pipeline::Pupil;
use super::recipe::{EndToEndRecipe, schedule};
use super::runner::{Runner, RunnerOptions, pool_of_steps};
use super::states::States;
use crate::engine::{Device, Engine, Value};

/// Two graphs of a block.
struct Trainer {
    forward: Runner,
    backward: Runner,
    input: String,
    objective: Objective,
    masks: HashMap<String, Value>,
}

/// The quantised model under calibration as a whole.
pub(super) struct EndToEnd {
    device: Arc<dyn Device>,
    recipe: EndToEndRecipe,
    trainers: Vec<Trainer>,
    teacher_tail: Runner,
    tail_input: String,
    divergence: Runner,
    names: (String, String),
    /// Tokens whose logits are held at once.
    chunk: usize,
}

/// What the whole model learns from.
pub(super) struct Corpus<'a> {
    /// What the first block reads.
    pub first: &'a States,
    /// What the last block gives in full precision.
    pub last: &'a States,
    /// Seed of the order of windows.
    pub seed: u64,
}

impl EndToEnd {
    /// Compiles the graphs of all blocks and of the tail. `outside` holds what they read from
    /// outside of the residual stream.
    pub fn new(
        engine: &dyn Engine,
        recipe: EndToEndRecipe,
        pupils: &[Pupil],
        tail: &BlockModel,
        outside: &HashMap<String, Value>,
    ) -> Result<Self, CalibrationError> {
        let buffers = pool_of_steps();
        let new = |model: &Model, parameters: Vec<String>| {
            let (precision, buffers) = (ProductPrecision::BF16, buffers.clone());
            let options = RunnerOptions { precision, fixed: outside, parameters, buffers };
            Runner::new(engine, model, options)
        };
        let trainers = pupils.iter().map(|Pupil { student, learner }| {
            let objective = Objective::new(student, Target::Gradient)?;
            let input = student.model.graph.value(student.input).name.clone();
            let forward = new(&student.model, learner.names())?;
            let backward = new(&objective.model, learner.names())?;
            let masks = masks(student, 1.0);
            Ok::<_, CalibrationError>(Trainer { forward, backward, input, objective, masks })
        });
        let trainers = trainers.collect::<Result<_, _>>()?;
        let divergence = Divergence::new(tail)?;
        Ok(Self {
            device: engine.device(),
            recipe,
            trainers,
            teacher_tail: new(&tail.model, Vec::new())?,
            tail_input: tail.model.graph.value(tail.input).name.clone(),
            divergence: new(&divergence.model, Vec::new())?,
            names: (divergence.hidden, divergence.teacher),
            chunk: (engine.best_chunk() / 2).max(1),
        })
    }

    /// Learns; returns the mean KL divergence per token of every step.
    pub fn learn(
        &mut self,
        pupils: &mut [Pupil],
        corpus: &Corpus<'_>,
        progress: &mut dyn FnMut(usize, f32),
    ) -> Result<Vec<f32>, CalibrationError> {
        let mut batches = Batches::new(corpus.first.n_windows(), self.recipe.batch, corpus.seed);
        let device = self.device.clone();
        let n_tokens = self.recipe.batch * corpus.first.length();
        let mut losses = Losses::new(&*device, 1.0 / n_tokens.max(1) as f32);
        for step in 0..self.recipe.steps {
            let windows = batches.take().to_vec();
            let loss = self.step(pupils, corpus, &windows, schedule(step, self.recipe.steps))?;
            losses.push(&loss, progress)?;
        }
        losses.finish(progress)
    }

    /// Returns parts of the sum of the divergences of all tokens.
    fn step(
        &mut self,
        pupils: &mut [Pupil],
        corpus: &Corpus<'_>,
        windows: &[usize],
        factor: f32,
    ) -> Result<Vec<Value>, CalibrationError> {
        let device = self.device.clone();
        let mut states = vec![corpus.first.batch(&*device, windows)?];
        for (trainer, pupil) in self.trainers.iter_mut().zip(pupils.iter()) {
            let x = &states[states.len() - 1];
            let outputs = trainer.forward.run(&|name| match name {
                _ if *name == trainer.input => Some(x.clone()),
                _ => value_of(pupil, &trainer.masks, name),
            })?;
            states.push(first(outputs, "a block's output")?);
        }
        let teacher = corpus.last.batch(&*device, windows)?;
        let (loss, mut gradient) = self.divergence(&states[states.len() - 1], &teacher)?;
        let blocks = self.trainers.iter_mut().zip(pupils).zip(&states);
        for ((trainer, pupil), x) in blocks.rev() {
            let Trainer { backward, input, objective, masks, .. } = trainer;
            let outputs = backward.run(&|name| match name {
                _ if name == input => Some(x.clone()),
                _ if name == objective.target => Some(gradient.clone()),
                _ => value_of(pupil, masks, name),
            })?;
            let mut outputs = outputs.into_iter();
            let gradients: Vec<Option<Value>> = objective
                .gradients
                .iter()
                .map(|g| g.as_ref().and_then(|_| outputs.next()))
                .collect();
            pupil.learner.step(&*device, &self.recipe.rates, factor, &gradients)?;
            if let Some(stability) = pupil.student.gradual {
                pupil.learner.keep_dominant(&*device, stability)?;
            }
            gradient = first(outputs.collect(), "the gradient of a block's input")?;
        }
        Ok(loss)
    }

    /// Parts of the sum of the divergences, and its gradient with respect to `student`,
    /// `[batch, length, hidden]`.
    fn divergence(
        &mut self,
        student: &Value,
        teacher: &Value,
    ) -> Result<(Vec<Value>, Value), CalibrationError> {
        let (device, shape) = (self.device.clone(), student.shape().to_vec());
        let hidden = shape.last().copied().unwrap_or(1);
        let n_tokens = shape.iter().product::<usize>() / hidden.max(1);
        let (mut sums, mut gradients) = (Vec::new(), Vec::new());
        for start in (0..n_tokens).step_by(self.chunk) {
            let of_chunk = [1, self.chunk.min(n_tokens - start), hidden];
            let rows = |x: &Value| device.part(x, start * hidden, &of_chunk);
            let (s, t) = (rows(student)?, rows(teacher)?);
            let logits =
                self.teacher_tail.run(&|name| (name == self.tail_input).then(|| t.clone()))?;
            let logits = first(logits, "logits")?;
            let outputs = self.divergence.run(&|name| match name {
                _ if name == self.names.0 => Some(s.clone()),
                _ if name == self.names.1 => Some(logits.clone()),
                _ => None,
            })?;
            // The next chunk overwrites them.
            sums.push(device.join(&outputs[..1], &[1])?);
            gradients.push(device.join(&outputs[1..2], &of_chunk)?);
        }
        // The gradient is that of the sum: AdamW takes any scale but one that ε outweighs.
        Ok((sums, device.join(&gradients, &shape)?))
    }
}

fn value_of(pupil: &Pupil, masks: &HashMap<String, Value>, name: &str) -> Option<Value> {
    masks.get(name).cloned().or_else(|| pupil.learner.value(name))
}

fn first(outputs: Vec<Value>, what: &str) -> Result<Value, CalibrationError> {
    outputs.into_iter().next().ok_or_else(|| CalibrationError::Value {
        value: what.to_owned(),
        problem: "it was not computed".into(),
    })
}
