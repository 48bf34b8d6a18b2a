//! Learning one block.

use std::collections::HashMap;

use planish_cpu::ThreadPool;
use planish_ir::Tensor;
use planish_kernels::ProductPrecision;
use planish_passes::calibrate::{GradualMask, Objective, Student, Target};

use super::CalibrationError;
use super::batches::Batches;
use super::learner::Learner;
use super::recipe::{BlockRecipe, schedule};
use super::runner::{Runner, pool_of_steps};
use super::states::States;
use crate::engine::Engine;

/// What a block learns from.
pub struct Lesson<'a> {
    /// Number of the block.
    pub block: usize,
    /// What it reads.
    pub inputs: &'a States,
    /// What it should give.
    pub targets: &'a States,
    /// What it reads from outside of the residual stream, for a batch.
    pub outside: &'a HashMap<String, Tensor>,
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
    pool: &ThreadPool,
    student: &Student,
    learner: &mut Learner,
    recipe: &BlockRecipe,
    lesson: &Lesson<'_>,
    progress: &mut dyn FnMut(usize, f32),
) -> Result<Vec<f32>, CalibrationError> {
    let objective = Objective::new(student, Target::Output)?;
    let input = student.model.graph.value(student.input).name.clone();
    let (precision, buffers) = (ProductPrecision::BF16, pool_of_steps());
    let mut runner = Runner::new(engine, &objective.model, precision, lesson.outside, buffers)?;
    let mut batches = Batches::new(lesson.inputs.n_windows(), recipe.batch, lesson.seed);
    let mut losses = Vec::with_capacity(recipe.steps);
    for step in 0..recipe.steps {
        let windows = batches.take();
        let (x, y) = (lesson.inputs.batch(windows), lesson.targets.batch(windows));
        let masks = masks(student, step as f32 / recipe.steps as f32);
        let outputs = runner.run(&|name| match name {
            _ if name == input => Some(x.clone()),
            _ if name == objective.target => Some(y.clone()),
            _ => masks.get(name).cloned().or_else(|| learner.tensor(name)),
        })?;
        let mut outputs = outputs.into_iter();
        let loss = scalar(outputs.next().as_ref())?;
        if !loss.is_finite() && step == 0 {
            return Err(CalibrationError::NotFinite { block: lesson.block });
        }
        let gradients: Vec<Option<Tensor>> =
            objective.gradients.iter().map(|g| g.as_ref().and_then(|_| outputs.next())).collect();
        learner.step(pool, &recipe.rates, schedule(step, recipe.steps), &gradients)?;
        if let Some(stability) = student.gradual {
            learner.keep_dominant(stability);
        }
        losses.push(loss);
        progress(step + 1, loss);
    }
    learner.forget_moments();
    Ok(losses)
}

/// The gradual masks of a student when `progress` of its learning is done.
pub fn masks(student: &Student, progress: f32) -> HashMap<String, Tensor> {
    let Some(stability) = student.gradual else { return HashMap::new() };
    let tensor = |n: usize| Tensor::from_vec(&[n, n], GradualMask::at(n, stability, progress));
    student.masks.iter().map(|mask| (mask.name.clone(), tensor(mask.n))).collect()
}

fn scalar(tensor: Option<&Tensor>) -> Result<f32, CalibrationError> {
    let values = tensor.and_then(|t| t.to_f32_vec().ok()).unwrap_or_default();
    values.first().copied().ok_or_else(|| CalibrationError::Value {
        value: "loss".into(),
        problem: "it is no number".into(),
    })
}
