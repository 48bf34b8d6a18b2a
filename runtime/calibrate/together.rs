//! The last stage: all blocks together.

use std::collections::HashMap;

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
        let mut whole = EndToEnd::new(self.engine, recipe, pupils, &tail, outside)?;
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
