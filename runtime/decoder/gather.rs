//! Logits of several runs put together.

use planish_ir::Tensor;
use planish_kernels::OpError;

use crate::engine::EngineError;
use crate::{Logits, LogitsOut};

/// Collects the logits of a prompt that is fed in pieces.
pub(super) struct Rows {
    want: Logits,
    batch: usize,
    /// Positions of each sequence.
    length: usize,
    vocab: usize,
    data: Vec<f32>,
}

impl Rows {
    pub fn new(want: Logits, batch: usize, length: usize, vocab: usize) -> Self {
        let rows = if want == Logits::All { batch * length } else { batch };
        Self { want, batch, length, vocab, data: vec![0.0; rows * vocab] }
    }

    /// Takes what is wanted of the logits of the positions `start..end`, which are the last ones of
    /// `logits`.
    ///
    /// # Errors
    /// If the logits have another shape.
    pub fn add(&mut self, logits: &Tensor, start: usize, end: usize) -> Result<(), EngineError> {
        let is_last = end == self.length;
        if self.want == Logits::Last && !is_last {
            return Ok(());
        }
        let &[batch, n, vocab] = logits.shape() else { return Err(self.misfit(logits)) };
        if (batch, vocab) != (self.batch, self.vocab) || n == 0 {
            return Err(self.misfit(logits));
        }
        let data = logits.to_f32_vec().map_err(|e| failed(e.into()))?;
        let (first, count, stride) = match self.want {
            Logits::All if n < end - start => return Err(self.misfit(logits)),
            Logits::All => (start, end - start, self.length),
            Logits::Last => (0, 1, 1),
        };
        for (row, sequence) in data.chunks_exact(n * vocab).enumerate() {
            let source = &sequence[(n - count) * vocab..];
            let target = (row * stride + first) * vocab;
            self.data[target..target + source.len()].copy_from_slice(source);
        }
        Ok(())
    }

    pub fn finish(self) -> LogitsOut {
        let rows = if self.vocab == 0 { 0 } else { self.data.len() / self.vocab };
        LogitsOut { rows, vocab: self.vocab, data: self.data }
    }

    fn misfit(&self, logits: &Tensor) -> EngineError {
        let (shape, batch, vocab) = (logits.shape(), self.batch, self.vocab);
        failed(OpError::shape(format!(
            "the logits have the shape {shape:?}, where {batch} sequences of {vocab} were expected"
        )))
    }
}

fn failed(error: OpError) -> EngineError {
    EngineError::Run { node: "of the logits".into(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], first: usize) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::from_vec(shape, (0..n).map(|i| (first + i) as f32).collect())
    }

    #[test]
    fn pieces_of_each_sequence_come_together() {
        let mut rows = Rows::new(Logits::All, 2, 3, 1);
        rows.add(&tensor(&[2, 2, 1], 0), 0, 2).unwrap();
        rows.add(&tensor(&[2, 1, 1], 10), 2, 3).unwrap();
        assert_eq!(rows.finish().data, [0., 1., 10., 2., 3., 11.]);
    }

    #[test]
    fn only_the_last_position_of_the_last_piece_counts() {
        for shape in [[2, 2, 1], [2, 1, 1]] {
            let mut rows = Rows::new(Logits::Last, 2, 4, 1);
            rows.add(&tensor(&shape, 5), 0, 2).unwrap();
            rows.add(&tensor(&shape, 0), 2, 4).unwrap();
            let n = shape[1];
            let expected = [(n - 1) as f32, (2 * n - 1) as f32];
            assert_eq!(rows.finish().data, expected);
        }
    }

    #[test]
    fn logits_of_another_shape_are_an_error() {
        let mut rows = Rows::new(Logits::All, 1, 2, 3);
        assert!(rows.add(&tensor(&[1, 2, 4], 0), 0, 2).is_err());
        assert!(rows.add(&tensor(&[1, 1, 3], 0), 0, 2).is_err());
    }
}
