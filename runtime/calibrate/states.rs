//! Hidden states of all calibration windows at one place of the residual stream.

use planish_ir::Tensor;

/// f32 `[windows, length, hidden]`.
#[derive(Debug, Clone, Default)]
pub struct States {
    data: Vec<f32>,
    length: usize,
    hidden: usize,
}

impl States {
    /// No windows of `length` tokens of `hidden` values.
    pub fn new(length: usize, hidden: usize) -> Self {
        Self { data: Vec::new(), length, hidden }
    }

    /// No windows, of the same sizes.
    pub fn empty_like(&self) -> Self {
        Self::new(self.length, self.hidden)
    }

    /// Number of windows.
    pub fn n_windows(&self) -> usize {
        self.data.len() / self.window_len().max(1)
    }

    fn window_len(&self) -> usize {
        self.length * self.hidden
    }

    /// Appends windows, `[n, length, hidden]`.
    pub fn push(&mut self, windows: &[f32]) {
        debug_assert_eq!(windows.len() % self.window_len().max(1), 0);
        self.data.extend_from_slice(windows);
    }

    /// The states of one window, `[length, hidden]`.
    pub fn window(&self, index: usize) -> &[f32] {
        let n = self.window_len();
        &self.data[index * n..(index + 1) * n]
    }

    /// Replaces the states of some windows by `[n, length, hidden]`.
    pub fn replace(&mut self, windows: &[usize], states: &[f32]) {
        let n = self.window_len();
        for (window, states) in windows.iter().zip(states.chunks_exact(n.max(1))) {
            self.data[window * n..(window + 1) * n].copy_from_slice(states);
        }
    }

    /// The states of some windows, `[n, length, hidden]`.
    pub fn batch(&self, windows: &[usize]) -> Tensor {
        let mut data = Vec::with_capacity(windows.len() * self.window_len());
        windows.iter().for_each(|w| data.extend_from_slice(self.window(*w)));
        Tensor::from_vec(&[windows.len(), self.length, self.hidden], data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_gather_windows() {
        let mut states = States::new(2, 1);
        states.push(&[1., 2., 3., 4., 5., -6.]);
        assert_eq!(states.n_windows(), 3);
        let batch = states.batch(&[2, 0]);
        assert_eq!(batch.shape(), [2, 2, 1]);
        assert_eq!(batch.to_f32_vec().unwrap(), [5., -6., 1., 2.]);
        states.replace(&[1], &[7., 8.]);
        assert_eq!(states.window(1), [7., 8.]);
    }
}
