//! Learning all blocks together: the KL divergence of the quantised model's logits to those of
//! the full-precision model (OSTQuant, arXiv 2501.13987, and others minimise it too).
//!
//! Only the states between blocks are kept of the forward pass; each block is run again on the
//! way back, so that memory grows with the number of blocks times the size of a hidden state.

use std::collections::HashMap;

use planish_cpu::ThreadPool;
use planish_ir::Tensor;
use planish_kernels::ProductPrecision;
use planish_passes::calibrate::{BlockModel, Divergence, Objective, Target};

use super::batches::Batches;
use super::block::masks;
use super::pipeline::Pupil;
use super::recipe::{EndToEndRecipe, schedule};
use super::runner::{Runner, pool_of_steps};
use super::states::States;
use super::{CalibrationError, floats};
use crate::engine::Engine;

/// Tokens whose logits are held at once.
const CHUNK: usize = 256;

/// Two graphs of a block.
struct Trainer {
    forward: Runner,
    backward: Runner,
    input: String,
    objective: Objective,
    masks: HashMap<String, Tensor>,
}

/// The quantised model under calibration as a whole.
pub(super) struct EndToEnd<'a> {
    pool: &'a ThreadPool,
    recipe: EndToEndRecipe,
    trainers: Vec<Trainer>,
    teacher_tail: Runner,
    tail_input: String,
    divergence: Runner,
    names: (String, String),
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

impl<'a> EndToEnd<'a> {
    /// Compiles the graphs of all blocks and of the tail. `outside` holds what they read from
    /// outside of the residual stream.
    pub fn new(
        engine: &dyn Engine,
        pool: &'a ThreadPool,
        recipe: EndToEndRecipe,
        pupils: &[Pupil],
        tail: &BlockModel,
        outside: &HashMap<String, Tensor>,
    ) -> Result<Self, CalibrationError> {
        let buffers = pool_of_steps();
        let trainers = pupils.iter().map(|pupil| {
            let student = &pupil.student;
            let objective = Objective::new(student, Target::Gradient)?;
            let new = |model| {
                Runner::new(engine, model, ProductPrecision::BF16, outside, buffers.clone())
            };
            let input = student.model.graph.value(student.input).name.clone();
            let (forward, backward) = (new(&student.model)?, new(&objective.model)?);
            let masks = masks(student, 1.0);
            Ok::<_, CalibrationError>(Trainer { forward, backward, input, objective, masks })
        });
        let trainers = trainers.collect::<Result<_, _>>()?;
        let divergence = Divergence::new(tail)?;
        let new =
            |model| Runner::new(engine, model, ProductPrecision::BF16, outside, buffers.clone());
        Ok(Self {
            pool,
            recipe,
            trainers,
            teacher_tail: new(&tail.model)?,
            tail_input: tail.model.graph.value(tail.input).name.clone(),
            divergence: new(&divergence.model)?,
            names: (divergence.hidden, divergence.teacher),
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
        let mut losses = Vec::with_capacity(self.recipe.steps);
        for step in 0..self.recipe.steps {
            let windows = batches.take().to_vec();
            let loss = self.step(pupils, corpus, &windows, schedule(step, self.recipe.steps))?;
            losses.push(loss);
            progress(step + 1, loss);
        }
        Ok(losses)
    }

    fn step(
        &mut self,
        pupils: &mut [Pupil],
        corpus: &Corpus<'_>,
        windows: &[usize],
        factor: f32,
    ) -> Result<f32, CalibrationError> {
        let mut states = vec![corpus.first.batch(windows)];
        for (trainer, pupil) in self.trainers.iter_mut().zip(pupils.iter()) {
            let x = &states[states.len() - 1];
            let outputs = trainer.forward.run(&|name| match name {
                _ if *name == trainer.input => Some(x.clone()),
                _ => trainer_tensor(pupil, &trainer.masks, name),
            })?;
            states.push(first(outputs, "a block's output")?);
        }
        let last = states.pop().unwrap_or_else(|| corpus.first.batch(windows));
        let (loss, mut gradient) = self.divergence(&last, &corpus.last.batch(windows))?;
        let blocks = self.trainers.iter_mut().zip(pupils).zip(&states);
        for ((trainer, pupil), x) in blocks.rev() {
            let Trainer { backward, input, objective, masks, .. } = trainer;
            let outputs = backward.run(&|name| match name {
                _ if name == input => Some(x.clone()),
                _ if name == objective.target => Some(gradient.clone()),
                _ => trainer_tensor(pupil, masks, name),
            })?;
            let mut outputs = outputs.into_iter();
            let gradients: Vec<Option<Tensor>> = objective
                .gradients
                .iter()
                .map(|g| g.as_ref().and_then(|_| outputs.next()))
                .collect();
            pupil.learner.step(self.pool, &self.recipe.rates, factor, &gradients)?;
            if let Some(stability) = pupil.student.gradual {
                pupil.learner.keep_dominant(stability);
            }
            gradient = first(outputs.collect(), "the gradient of a block's input")?;
        }
        Ok(loss)
    }

    /// The mean divergence per token, and its gradient with respect to `student`,
    /// `[batch, length, hidden]`.
    fn divergence(
        &mut self,
        student: &Tensor,
        teacher: &Tensor,
    ) -> Result<(f32, Tensor), CalibrationError> {
        let shape = student.shape().to_vec();
        let hidden = shape.last().copied().unwrap_or(1).max(1);
        let (s, t) = (floats(student, "hidden states")?, floats(teacher, "hidden states")?);
        let n_tokens = s.len() / hidden;
        let (mut sum, mut gradient) = (0.0f64, Vec::with_capacity(s.len()));
        for (s, t) in s.chunks(CHUNK * hidden).zip(t.chunks(CHUNK * hidden)) {
            let rows = |x: &[f32]| Tensor::from_vec(&[1, x.len() / hidden, hidden], x.to_vec());
            let (s, t) = (rows(s), rows(t));
            let logits =
                self.teacher_tail.run(&|name| (name == self.tail_input).then(|| t.clone()))?;
            let logits = first(logits, "logits")?;
            let outputs = self.divergence.run(&|name| match name {
                _ if name == self.names.0 => Some(s.clone()),
                _ if name == self.names.1 => Some(logits.clone()),
                _ => None,
            })?;
            sum += f64::from(floats(&outputs[0], "divergence")?.first().copied().unwrap_or(0.0));
            gradient.extend(floats(&outputs[1], "gradient")?);
        }
        // The gradient is that of the sum: AdamW takes any scale but one that ε outweighs.
        Ok(((sum / n_tokens.max(1) as f64) as f32, Tensor::from_vec(&shape, gradient)))
    }
}

fn trainer_tensor(pupil: &Pupil, masks: &HashMap<String, Tensor>, name: &str) -> Option<Tensor> {
    masks.get(name).cloned().or_else(|| pupil.learner.tensor(name))
}

fn first(outputs: Vec<Tensor>, what: &str) -> Result<Tensor, CalibrationError> {
    outputs.into_iter().next().ok_or_else(|| CalibrationError::Value {
        value: what.to_owned(),
        problem: "it was not computed".into(),
    })
}
