//! The losses of steps under way.

use super::{CalibrationError, floats};
use crate::engine::{Device, Value};

/// The losses of steps. They are asked for some steps later, so that a device goes on meanwhile.
pub struct Losses<'a> {
    device: &'a dyn Device,
    /// What sums are multiplied by.
    factor: f32,
    /// A copy of what each step gave.
    pending: Vec<Value>,
    known: Vec<f32>,
}

impl<'a> Losses<'a> {
    /// None yet; the loss of a step is the sum of what it gives times `factor`.
    pub fn new(device: &'a dyn Device, factor: f32) -> Self {
        Self { device, factor, pending: Vec::new(), known: Vec::new() }
    }

    /// Adds that of a step, and calls `progress` with the number of each step and its loss when they
    /// are known.
    ///
    /// # Errors
    /// If the device failed.
    pub fn push(
        &mut self,
        parts: &[Value],
        progress: &mut dyn FnMut(usize, f32),
    ) -> Result<(), CalibrationError> {
        let n = parts.iter().map(|part| part.shape().iter().product::<usize>()).sum();
        self.pending.push(self.device.join(parts, &[n])?);
        // The first tells whether anything can be learned at all.
        if self.known.is_empty() || self.pending.len() >= self.device.steps_ahead() {
            self.settle(progress)?;
        }
        Ok(())
    }

    fn settle(&mut self, progress: &mut dyn FnMut(usize, f32)) -> Result<(), CalibrationError> {
        for loss in self.pending.drain(..) {
            let parts = floats(&self.device.download(&loss)?, "loss")?;
            let sum: f64 = parts.iter().map(|x| f64::from(*x)).sum();
            self.known.push((sum * f64::from(self.factor)) as f32);
            progress(self.known.len(), self.known[self.known.len() - 1]);
        }
        Ok(())
    }

    /// The loss of the first step, if it is known.
    pub fn first(&self) -> Option<f32> {
        self.known.first().copied()
    }

    /// All losses.
    ///
    /// # Errors
    /// If the device failed.
    pub fn finish(
        mut self,
        progress: &mut dyn FnMut(usize, f32),
    ) -> Result<Vec<f32>, CalibrationError> {
        self.settle(progress)?;
        Ok(self.known)
    }
}
