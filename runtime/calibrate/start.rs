//! Where the clipping of weights starts: at the least squared error of what is rounded.

use std::collections::HashMap;

use planish_ir::ValueId;
use planish_kernels::ProductPrecision;
use planish_passes::calibrate::{ClipSlots, Student, StudentOptions};
use planish_passes::quantize::{Clipping, WeightFormat, column_scales};

use super::block::masks;
use super::learner::Learner;
use super::runner::{Runner, RunnerOptions, pool_of_steps};
use super::{CalibrationError, floats};
use crate::engine::Engine;

/// Ratios above this start here, where the sigmoid still has a slope.
const LARGEST_RATIO: f32 = 0.98;

/// Sets the clipping parameters of all weights to the ratio of the range that a search finds best
/// for the weight as its transforms leave it.
///
/// # Errors
/// If the student's graph can't be run, or a weight is not finite.
pub fn start_weight_clips(
    engine: &dyn Engine,
    student: &Student,
    learner: &mut Learner,
    options: &StudentOptions,
) -> Result<(), CalibrationError> {
    let mut model = student.model.clone();
    let clipped: Vec<(ClipSlots, _)> = student
        .linears
        .iter()
        .filter_map(|(id, slots)| Some((slots.clip?, *student.folded.get(id)?)))
        .collect();
    if clipped.is_empty() {
        return Ok(());
    }
    model.graph.outputs = clipped.iter().map(|(_, value)| *value).collect();
    model.graph.remove_dead();
    let graph = &mut model.graph;
    // A weight that is learned and nothing is folded into is input and output at once.
    let is_needed = |v: &ValueId| graph.is_output(*v) || !graph.users(*v).is_empty();
    let needed = graph.inputs.iter().copied().filter(is_needed).collect();
    graph.inputs = needed;
    let masks = masks(student, 0.0);
    let no_inputs = HashMap::new();
    let runner_options = RunnerOptions {
        precision: ProductPrecision::F32,
        fixed: &no_inputs,
        parameters: learner.names(),
        buffers: pool_of_steps(),
    };
    let mut runner = Runner::new(engine, &model, runner_options)?;
    let weights = runner.run(&|name| masks.get(name).cloned().or_else(|| learner.value(name)))?;
    let device = &*engine.device();
    let format = WeightFormat { bits: options.bits.weights, group_size: options.group_size };
    for ((clip, _), weight) in clipped.iter().zip(&weights) {
        let n_columns = weight.shape().last().copied().unwrap_or(1);
        let data = floats(&device.download(weight)?, "a weight")?;
        let scales = |clipping| {
            column_scales(&data, n_columns, format, clipping).map_err(|error| {
                CalibrationError::Value { value: "a weight".into(), problem: error.to_string() }
            })
        };
        let full = scales(Clipping::Full)?;
        let best = scales(Clipping::Search { importance: None })?;
        let logit = |(best, full): (&f32, &f32)| {
            let ratio = (best / full).clamp(1e-3, LARGEST_RATIO);
            (ratio / (1.0 - ratio)).ln()
        };
        let logits: Vec<f32> = best.iter().zip(&full).map(logit).collect();
        learner.set(device, clip.max, &logits)?;
        learner.set(device, clip.min, &logits)?;
    }
    Ok(())
}
