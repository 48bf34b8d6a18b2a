//! Learning one block.

use std::collections::HashMap;

use planish_ir::Tensor;
use planish_kernels::ProductPrecision;
use planish_passes::calibrate::{GradualMask, Objective, Student, Target};

use super::CalibrationError;
use super::batches::Batches;
use super::learner::Learner;
use super::losses::Losses;
use super::recipe::{BlockRecipe, schedule};
use super::runner::{Runner, RunnerOptions, pool_of_steps};
use super::states::States;
use crate::engine::{Engine, Value};

/// What a block learns from.
pub struct Lesson<'a> {
    /// Number of the block.
    pub block: usize,
    /// What it reads.
    pub inputs: &'a States,
    /// What it should give.
    pub targets: &'a States,
    /// What it reads from outside of the residual stream, for a batch.
    pub outside: &'a HashMap<String, Value>,
    /// Seed of the order of windows.
    pub seed: u64,
}

/// Learns the parameters of a block; returns the loss of every step. `progress` is called with
/// the number of steps done and the loss of the last.
///
/// # Errors
/// If the block can't be differentiated or run, or its first loss is no number.
pub fn learn_block(
    engine: &dyn Engine,
    student: &Student,
    learner: &mut Learner,
    recipe: &BlockRecipe,
    lesson: &Lesson<'_>,
    progress: &mut dyn FnMut(usize, f32),
) -> Result<Vec<f32>, CalibrationError> {
    let objective = Objective::new(student, Target::Output)?;
    let input = student.model.graph.value(student.input).name.clone();
    let options = RunnerOptions {
        precision: ProductPrecision::BF16,
        fixed: lesson.outside,
        parameters: learner.names(),
        buffers: pool_of_steps(),
    };
    let mut runner = Runner::new(engine, &objective.model, options)?;
    let mut batches = Batches::new(lesson.inputs.n_windows(), recipe.batch, lesson.seed);
    let device = &*engine.device();
    let mut losses = Losses::new(device, 1.0);
    for step in 0..recipe.steps {
        let windows = batches.take();
        let (x, y) =
            (lesson.inputs.batch(device, windows)?, lesson.targets.batch(device, windows)?);
        let masks = masks(student, step as f32 / recipe.steps as f32);
        let outputs = runner.run(&|name| match name {
            _ if name == input => Some(x.clone()),
            _ if name == objective.target => Some(y.clone()),
            _ => masks.get(name).cloned().or_else(|| learner.value(name)),
        })?;
        let mut outputs = outputs.into_iter();
        losses.push(outputs.next().as_slice(), progress)?;
        if losses.first().is_some_and(|first| !first.is_finite()) {
            return Err(CalibrationError::NotFinite { block: lesson.block });
        }
        let gradients: Vec<Option<Value>> =
            objective.gradients.iter().map(|g| g.as_ref().and_then(|_| outputs.next())).collect();
        learner.step(device, &recipe.rates, schedule(step, recipe.steps), &gradients)?;
        if let Some(stability) = student.gradual {
            learner.keep_dominant(device, stability)?;
        }
    }
    learner.forget_moments();
    losses.finish(progress)
}

/// The gradual masks of a student when `progress` of its learning is done.
pub fn masks(student: &Student, progress: f32) -> HashMap<String, Value> {
    let Some(stability) = student.gradual else { return HashMap::new() };
    let value =
        |n: usize| Value::Host(Tensor::from_vec(&[n, n], GradualMask::at(n, stability, progress)));
    student.masks.iter().map(|mask| (mask.name.clone(), value(mask.n))).collect()
}
