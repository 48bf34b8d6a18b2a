//! Handing over blocks that are done, beside what the engine does next.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use planish_ir::Tensor;
use planish_passes::calibrate::{LearnedBlock, Student};
use planish_passes::quantize::{Hessians, QuantizeError};

use super::CalibrationError;
use super::pipeline::{Calibration, Pupil};
use super::states::States;
use crate::engine::Value;

/// Called with the number of a block, what it learned, and the Hessians of its sites.
pub(super) type Finished<'a> =
    dyn FnMut(usize, LearnedBlock, Hessians) -> Result<(), QuantizeError> + Send + 'a;

/// A block that is done, in host memory: the engine belongs to the thread that learns.
pub(super) struct Done {
    index: usize,
    student: Student,
    values: Vec<Tensor>,
    hessians: Hessians,
}

impl Done {
    fn pass_to(self, finished: &mut Finished<'_>) -> Result<(), CalibrationError> {
        let learned = LearnedBlock::new(&self.student, &self.values)?;
        Ok(finished(self.index, learned, self.hessians)?)
    }
}

/// Does `work` on this thread while another passes the blocks that it hands over to `finished`, in
/// order. A block is waited with until the one before has been passed on, so that only one is held
/// beside what is learning. The first failure is the one that is told: it may be that of a block
/// that was handed over before `work` failed.
///
/// # Errors
/// Those of `finished` and of `work`.
pub(super) fn beside<T>(
    finished: &mut Finished<'_>,
    work: impl FnOnce(&SyncSender<Done>) -> Result<T, CalibrationError>,
) -> Result<T, CalibrationError> {
    thread::scope(|scope| {
        let (hand, done) = sync_channel::<Done>(0);
        let passing =
            scope.spawn(move || done.into_iter().try_for_each(|done| done.pass_to(finished)));
        let worked = work(&hand);
        drop(hand);
        passing.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        worked
    })
}

/// Handing over blocks, in order.
pub(super) struct Finish<'a> {
    calibration: &'a Calibration<'a>,
    /// What the quantised blocks before the next one give, where Hessians are asked for.
    states: States,
    outside: &'a HashMap<String, Value>,
    hand: &'a SyncSender<Done>,
}

impl<'a> Finish<'a> {
    /// None is handed over yet; the first reads `states`.
    pub fn new(
        calibration: &'a Calibration<'a>,
        states: States,
        outside: &'a HashMap<String, Value>,
        hand: &'a SyncSender<Done>,
    ) -> Self {
        Self { calibration, states, outside, hand }
    }

    /// Hands over the next block.
    ///
    /// # Errors
    /// If the engine failed, or one that was handed over before.
    pub fn block(&mut self, index: usize, pupil: Pupil) -> Result<(), CalibrationError> {
        let calibration = self.calibration;
        let values = pupil.learner.tensors(&*calibration.engine.device())?;
        let hessians = match calibration.hessians {
            true => calibration.hessians_of(&pupil, &mut self.states, self.outside)?,
            false => Hessians::default(),
        };
        let done = Done { index, student: pupil.student, values, hessians };
        // Why nothing takes it is what `beside` tells.
        self.hand.send(done).map_err(|_| CalibrationError::Value {
            value: format!("block {index}"),
            problem: "a block before it could not be passed on".into(),
        })
    }
}
