//! Elementwise loops over broadcast operands.

use super::broadcast;

/// How `K` operands are walked over to give an output: neighbouring axes that all operands walk
/// alike are merged, so that equal shapes, scalars and vectors along the last axis become one
/// long inner loop.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan<const K: usize> {
    /// Merged outer axes, outermost first: size, and each operand's step in elements.
    outer: Vec<(usize, [usize; K])>,
    /// Length of the inner loop.
    pub(crate) inner: usize,
    /// Each operand's step in the inner loop: 0 or 1.
    pub(crate) steps: [usize; K],
}

impl<const K: usize> Plan<K> {
    /// The plan for operands of these shapes, which broadcast to `target`.
    pub(crate) fn new(shapes: [&[usize]; K], target: &[usize]) -> Self {
        let strides = shapes.map(|shape| broadcast::strides(shape, target));
        let mut groups: Vec<(usize, [usize; K])> = Vec::new();
        for axis in (0..target.len()).rev().filter(|axis| target[*axis] != 1) {
            let steps: [usize; K] = std::array::from_fn(|k| strides[k][axis]);
            match groups.last_mut() {
                Some((size, inner)) if (0..K).all(|k| steps[k] == inner[k] * *size) => {
                    *size *= target[axis];
                }
                _ => groups.push((target[axis], steps)),
            }
        }
        groups.reverse();
        let (inner, steps) = groups.pop().unwrap_or((1, [0; K]));
        Self { outer: groups, inner, steps }
    }

    /// Calls `f` for each stretch of the inner loop in the output elements
    /// `start..start + len`: with the position relative to `start`, the stretch's length, and
    /// where each operand begins.
    pub(crate) fn walk(
        &self,
        start: usize,
        len: usize,
        mut f: impl FnMut(usize, usize, [usize; K]),
    ) {
        let mut done = 0;
        while done < len {
            let (row, column) = ((start + done) / self.inner, (start + done) % self.inner);
            let n = (self.inner - column).min(len - done);
            let mut offsets = self.row(row);
            for (offset, step) in offsets.iter_mut().zip(self.steps) {
                *offset += column * step;
            }
            f(done, n, offsets);
            done += n;
        }
    }

    fn row(&self, mut row: usize) -> [usize; K] {
        let mut offsets = [0; K];
        for (size, steps) in self.outer.iter().rev() {
            for (offset, step) in offsets.iter_mut().zip(steps) {
                *offset += row % size * step;
            }
            row /= size;
        }
        offsets
    }
}
