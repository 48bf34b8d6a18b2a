//! Learning several blocks at once.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use planish_passes::calibrate::BlockModel;

use super::CalibrationError;
use super::capture::Captured;
use super::pipeline::{Calibration, CalibrationProgress, Learned, Pupil, Report};
use super::states::States;
use crate::engine::Engine;

/// A share of the machine that learns one block at a time.
pub struct Worker {
    /// What runs the block's graphs.
    pub engine: Box<dyn Engine>,
}

/// What one block came to.
type BlockResult = Result<(Pupil, Vec<f32>), CalibrationError>;

impl Calibration<'_> {
    /// Blocks that read what the full-precision model feeds them do not depend on each other:
    /// while workers learn some, this thread runs the full-precision model on to the next.
    pub(super) fn learn_side_by_side(
        &self,
        blocks: &[BlockModel],
        captured: &Captured,
        progress: &mut Report<'_>,
    ) -> Result<Learned, CalibrationError> {
        let progress = Mutex::new(progress);
        let (give_back, idle) = mpsc::channel::<&Worker>();
        let gone = || CalibrationError::Value {
            value: "a worker".into(),
            problem: "it did not come back".into(),
        };
        for worker in self.workers {
            give_back.send(worker).map_err(|_| gone())?;
        }
        thread::scope(|scope| {
            let mut learning = Vec::new();
            let mut inputs = Arc::new(captured.states.clone());
            for (index, block) in blocks.iter().enumerate() {
                let worker = idle.recv().map_err(|_| gone())?;
                let outside = &captured.outside;
                let targets = Arc::new(self.teach(block, &inputs, outside)?);
                let (read, give_back) = ((inputs, targets.clone()), give_back.clone());
                let progress = &progress;
                learning.push(scope.spawn(move || {
                    let result = self.learn_with(worker, (index, block), &read, captured, progress);
                    // The receiver lives as long as the scope.
                    let _ = give_back.send(worker);
                    result
                }));
                inputs = targets;
            }
            let (mut pupils, mut losses) = (Vec::new(), Vec::new());
            for thread in learning {
                let (pupil, loss) = thread.join().unwrap_or_else(|panic| {
                    std::panic::resume_unwind(panic);
                })?;
                pupils.push(pupil);
                losses.push(loss);
            }
            let last = Arc::unwrap_or_clone(inputs);
            Ok(Learned { pupils, losses, last })
        })
    }

    fn learn_with(
        &self,
        worker: &Worker,
        (index, block): (usize, &BlockModel),
        (inputs, targets): &(Arc<States>, Arc<States>),
        captured: &Captured,
        progress: &Mutex<&mut Report<'_>>,
    ) -> BlockResult {
        let engine = worker.engine.as_ref();
        let mut pupil = self.pupil(engine, index, block, inputs, &captured.outside)?;
        let lesson = self.lesson(index, inputs, targets, &captured.outside);
        let mut report = |step: CalibrationProgress| {
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress(step);
        };
        let losses = self.learn(engine, &mut pupil, &lesson, &mut report)?;
        Ok((pupil, losses))
    }
}
