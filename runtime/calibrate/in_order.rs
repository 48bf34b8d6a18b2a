//! Learning one block after the other.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::thread;

use planish_passes::calibrate::{BlockModel, Student};

use super::CalibrationError;
use super::capture::Captured;
use super::pipeline::{Calibration, Pupil, Report};
use super::recipe::BlockInput;
use super::states::States;
use crate::engine::Value;

/// What came of building a student ahead of its turn.
type Ahead = Result<Student, CalibrationError>;

impl Calibration<'_> {
    /// One block after the other; each reads what the recipe says, and goes to `take` when it has
    /// learned. Returns the losses of each, and what the last gives in full precision.
    pub(super) fn learn_in_order(
        &self,
        blocks: &[BlockModel],
        captured: &Captured,
        progress: &mut Report<'_>,
        take: &mut dyn FnMut(usize, Pupil) -> Result<(), CalibrationError>,
    ) -> Result<(Vec<Vec<f32>>, States), CalibrationError> {
        let outside = &captured.outside;
        let (mut teacher, mut losses) = (captured.states.clone(), Vec::new());
        let quantized = self.recipe.blocks.input == BlockInput::Quantized;
        let mut own = quantized.then(|| teacher.clone());
        let mut ahead: Option<Ahead> = None;
        for (index, block) in blocks.iter().enumerate() {
            let targets = self.teach(block, &teacher, outside)?;
            let student = match ahead.take() {
                Some(student) => student?,
                None => self.student(
                    index,
                    block,
                    self.observe(self.engine, block, &teacher, outside)?,
                )?,
            };
            let mut pupil = self.pupil_of(self.engine, student)?;
            let inputs = own.as_ref().unwrap_or(&teacher);
            let lesson = self.lesson(index, inputs, &targets, outside);
            let next = blocks.get(index + 1).map(|block| (index + 1, block));
            let learned;
            (learned, ahead) = self.beside_next(next, &targets, outside, || {
                self.learn(self.engine, &mut pupil, &lesson, progress)
            })?;
            losses.push(learned);
            if let Some(states) = own.as_mut().filter(|_| index + 1 < blocks.len()) {
                self.advance(&pupil, &pupil.student.model, states, outside, &mut |_| Ok(()))?;
            }
            take(index, pupil)?;
            teacher = targets;
        }
        Ok((losses, teacher))
    }

    /// Does `work` on this thread while another builds the student of the `next` block, which reads
    /// `inputs` in full precision. What that takes of the engine is done before: it belongs to
    /// this thread. That the student failed is told when its turn comes.
    fn beside_next<T>(
        &self,
        next: Option<(usize, &BlockModel)>,
        inputs: &States,
        outside: &HashMap<String, Value>,
        work: impl FnOnce() -> Result<T, CalibrationError>,
    ) -> Result<(T, Option<Ahead>), CalibrationError> {
        let Some((index, block)) = next else { return Ok((work()?, None)) };
        let statistics = self.observe(self.engine, block, inputs, outside);
        thread::scope(|scope| {
            let student = scope.spawn(move || self.student(index, block, statistics?));
            let done = work()?;
            Ok((done, Some(student.join().unwrap_or_else(|panic| resume_unwind(panic)))))
        })
    }
}
