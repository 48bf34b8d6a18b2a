//! Where the vectors of heads lie in a tensor.

use crate::mat::MatRef;

/// A dense tensor of `batch · heads · rows` vectors of `dim` values, in either order of its axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLayout {
    /// Sequences.
    pub batch: usize,
    /// Heads of a row.
    pub heads: usize,
    /// Rows (tokens) of a sequence.
    pub rows: usize,
    /// Values of a head.
    pub dim: usize,
    /// Whether the tensor is `[batch, heads, rows, dim]`, not `[batch, rows, heads · dim]`.
    pub head_major: bool,
}

impl HeadLayout {
    /// Elements of the tensor.
    pub fn n_elements(&self) -> usize {
        self.batch * self.heads * self.rows * self.dim
    }

    /// Elements from one row of a head to the next.
    pub(super) fn step(&self) -> usize {
        if self.head_major { self.dim } else { self.heads * self.dim }
    }

    /// The first element of row `row` of a head.
    pub fn start(&self, batch: usize, head: usize, row: usize) -> usize {
        if self.head_major {
            ((batch * self.heads + head) * self.rows + row) * self.dim
        } else {
            ((batch * self.rows + row) * self.heads + head) * self.dim
        }
    }

    /// One head as a `[rows, dim]` matrix; the tensor is not empty.
    pub(super) fn head<'a>(&self, data: &'a [f32], batch: usize, head: usize) -> MatRef<'a> {
        let data = &data[self.start(batch, head, 0)..];
        MatRef::with_stride(data, self.rows, self.dim, self.step())
    }
}
