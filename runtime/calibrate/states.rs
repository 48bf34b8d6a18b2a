//! Hidden states of all calibration windows at one place of the residual stream.

use planish_kernels::OpError;

use super::CalibrationError;
use crate::engine::{Device, EngineError, Value};

/// f32 `[1, length, hidden]` for each window, where the engine keeps tensors.
#[derive(Clone, Default)]
pub struct States {
    windows: Vec<Value>,
    length: usize,
    hidden: usize,
}

impl States {
    /// No windows of `length` tokens of `hidden` values.
    pub fn new(length: usize, hidden: usize) -> Self {
        Self { windows: Vec::new(), length, hidden }
    }

    /// No windows, of the same sizes.
    pub fn empty_like(&self) -> Self {
        Self::new(self.length, self.hidden)
    }

    /// Tokens of a window.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Number of windows.
    pub fn n_windows(&self) -> usize {
        self.windows.len()
    }

    /// Appends copies of the windows of a batch, `[n, length, hidden]`.
    ///
    /// # Errors
    /// If it has another shape, or there is no memory.
    pub fn push(&mut self, device: &dyn Device, batch: &Value) -> Result<(), CalibrationError> {
        let windows = self.split(device, batch)?;
        self.windows.extend(windows);
        Ok(())
    }

    /// Replaces some windows by copies of those of a batch, `[n, length, hidden]`.
    ///
    /// # Errors
    /// As [`States::push`].
    pub fn replace(
        &mut self,
        device: &dyn Device,
        windows: &[usize],
        batch: &Value,
    ) -> Result<(), CalibrationError> {
        for (window, states) in windows.iter().zip(self.split(device, batch)?) {
            self.windows[*window] = states;
        }
        Ok(())
    }

    fn split(&self, device: &dyn Device, batch: &Value) -> Result<Vec<Value>, CalibrationError> {
        let n = match *batch.shape() {
            [n, length, hidden] if (length, hidden) == (self.length, self.hidden) => n,
            ref shape => {
                let message = format!("states {shape:?} of windows of {} tokens", self.length);
                let error = OpError::shape(message);
                return Err(EngineError::Run { node: "of a block".into(), error }.into());
            }
        };
        let shape = [1, self.length, self.hidden];
        let window = |i: usize| {
            let part = device.part(batch, i * self.length * self.hidden, &shape)?;
            Ok(device.join(&[part], &shape)?)
        };
        (0..n).map(window).collect()
    }

    /// The states of some windows, `[n, length, hidden]`.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn batch(&self, device: &dyn Device, windows: &[usize]) -> Result<Value, CalibrationError> {
        let parts: Vec<Value> = windows.iter().map(|w| self.windows[*w].clone()).collect();
        Ok(device.join(&parts, &[windows.len(), self.length, self.hidden])?)
    }
}

#[cfg(test)]
mod tests {
    use planish_ir::Tensor;

    use super::*;
    use crate::engine::Engine;
    use crate::engine::cpu::CpuEngine;

    #[test]
    fn batches_gather_windows() {
        let device = CpuEngine::new(1).device();
        let mut states = States::new(2, 1);
        let value =
            |n: usize, data: &[f32]| Value::Host(Tensor::from_vec(&[n, 2, 1], data.to_vec()));
        states.push(&*device, &value(3, &[1., 2., 3., 4., 5., -6.])).unwrap();
        assert_eq!(states.n_windows(), 3);
        let of = |states: &States, windows: &[usize]| {
            let batch = states.batch(&*device, windows).unwrap();
            assert_eq!(batch.shape(), [windows.len(), 2, 1]);
            device.download(&batch).unwrap().to_f32_vec().unwrap()
        };
        assert_eq!(of(&states, &[2, 0]), [5., -6., 1., 2.]);
        let before = states.clone();
        states.replace(&*device, &[1], &value(1, &[7., 8.])).unwrap();
        assert_eq!(of(&states, &[1]), [7., 8.]);
        assert_eq!(of(&before, &[1]), [3., 4.], "others keep theirs");
        let wrong = Value::Host(Tensor::from_vec(&[1, 3, 1], vec![0f32; 3]));
        assert!(states.push(&*device, &wrong).is_err());
    }
}
