//! The last stage: all blocks together.

use std::collections::HashMap;

use planish_ir::{Tensor, TensorError};
use planish_passes::calibrate::cut_tail;

use super::CalibrationError;
use super::end_to_end::{Corpus, EndToEnd};
use super::pipeline::{Calibration, CalibrationProgress, Pupil, Report};
use crate::engine::Value;

impl Calibration<'_> {
    /// The last stage, if the recipe has it.
    pub(super) fn learn_together(
        &self,
        pupils: &mut [Pupil],
        corpus: &Corpus<'_>,
        outside: &HashMap<String, Value>,
        progress: &mut Report<'_>,
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
        let outside = self.outside_for(recipe.batch, outside)?;
        let mut whole = EndToEnd::new(self.engine, recipe, pupils, &tail, &outside)?;
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

    /// What blocks read from outside, for batches of another size: what was captured is the same for
    /// every window.
    fn outside_for(
        &self,
        batch: usize,
        outside: &HashMap<String, Value>,
    ) -> Result<HashMap<String, Value>, CalibrationError> {
        let (device, captured) = (self.engine.device(), self.recipe.blocks.batch);
        let resized = |(name, value): (&String, &Value)| {
            let mut shape = value.shape().to_vec();
            let by_window = shape.len() > 1 && shape[0] == captured && captured != batch;
            if !by_window {
                return Ok((name.clone(), value.clone()));
            }
            let tensor = device.download(value)?;
            let bytes = tensor.bytes();
            let one = bytes.slice(..bytes.len() / captured);
            shape[0] = batch;
            let failed = |error: TensorError| CalibrationError::Value {
                value: name.clone(),
                problem: error.to_string(),
            };
            let all = Tensor::new(tensor.dtype(), shape, one.repeat(batch).into());
            let all = all.map_err(failed)?;
            let is_float = all.dtype().is_float();
            let value = if is_float { device.upload(&all)? } else { Value::Host(all) };
            Ok((name.clone(), value))
        };
        outside.iter().map(resized).collect()
    }

    /// Takes over what the last stage learned before; nothing if it was not finished.
    pub(super) fn restore_all(
        &self,
        pupils: &mut [Pupil],
        name: &dyn Fn(usize) -> String,
    ) -> Result<Option<Vec<f32>>, CalibrationError> {
        let Some(store) = self.store else { return Ok(None) };
        let Some(first) = store.load(&name(0))? else { return Ok(None) };
        for (block, pupil) in pupils.iter_mut().enumerate() {
            let Some(finished) = store.load(&name(block))? else { return Ok(None) };
            if !pupil.learner.restore(&*self.engine.device(), &finished.values)? {
                return Ok(None);
            }
        }
        Ok(Some(first.losses))
    }
}
