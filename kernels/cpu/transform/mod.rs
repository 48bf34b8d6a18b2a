//! Kronecker-structured transforms of activation rows, fused with what comes before and with the
//! quantisation after them, and their gradients.

use std::ops::Range;

use crate::norm::rms_norm_row;
use crate::{Isa, elementwise};

mod forward;
mod grad;
mod product;

pub use forward::{transform_quantize, transform_rows};
pub use grad::transform_rows_grad;

/// Values of the rows that are transformed together: with the products between they lie in the
/// first cache.
const GROUP_VALUES: usize = 4_096;

/// Where the rows of a transform come from; every slice is `[m, n]` row-major.
#[derive(Clone, Copy, Debug)]
pub enum RowSource<'a> {
    /// The rows themselves.
    Plain(&'a [f32]),
    /// RMSNorm of the rows: x / sqrt(mean(x²) + eps) · weight, with `weight` `[n]`.
    RmsNorm {
        /// The rows before the norm.
        x: &'a [f32],
        /// The norm's weight.
        weight: &'a [f32],
        /// The norm's epsilon.
        eps: f32,
    },
    /// SwiGLU: silu(gate) · up.
    SwiGlu {
        /// Rows of the gate projection.
        gate: &'a [f32],
        /// Rows of the up projection.
        up: &'a [f32],
    },
}

/// The transform Y = P1ᵀ·X̃·P2 of a row of n1·n2 values reshaped to X̃ `[n1, n2]`, which is the
/// row times P1 ⊗ P2 (FlatQuant, Sun et al. 2024, section 3.2). `None` stands for the identity.
#[derive(Clone, Copy, Debug)]
pub struct Kronecker<'a> {
    /// Rows of the reshaped row.
    pub n1: usize,
    /// Columns of the reshaped row.
    pub n2: usize,
    /// P1, `[n1, n1]` row-major.
    pub p1: Option<&'a [f32]>,
    /// P2, `[n2, n2]` row-major.
    pub p2: Option<&'a [f32]>,
}

impl Kronecker<'_> {
    /// Length of a row.
    pub fn n(&self) -> usize {
        self.n1 * self.n2
    }

    /// Rows that are worked on together.
    fn group(&self) -> usize {
        (GROUP_VALUES / self.n().max(1)).max(1)
    }

    fn check(&self) {
        assert!(self.p1.is_none_or(|p| p.len() == self.n1 * self.n1), "length of P1");
        assert!(self.p2.is_none_or(|p| p.len() == self.n2 * self.n2), "length of P2");
    }
}

impl<'a> RowSource<'a> {
    fn check(&self, m: usize, n: usize) {
        let (x, second) = match *self {
            Self::Plain(x) => (x, None),
            Self::RmsNorm { x, weight, .. } => (x, Some((weight, n))),
            Self::SwiGlu { gate, up } => (gate, Some((up, m * n))),
        };
        assert_eq!(x.len(), m * n, "transform input length");
        assert!(second.is_none_or(|(s, len)| s.len() == len), "second transform input length");
    }

    /// The rows of `n` values in `rows`, computed into `buffer` unless they are there already.
    fn rows<'b>(&self, isa: Isa, rows: Range<usize>, n: usize, buffer: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        let at = rows.start * n..rows.end * n;
        match *self {
            Self::Plain(x) => return &x[at],
            Self::RmsNorm { x, weight, eps } => {
                for (x, y) in x[at].chunks_exact(n).zip(buffer.chunks_exact_mut(n)) {
                    rms_norm_row(isa, x, weight, eps, y);
                }
            }
            Self::SwiGlu { gate, up } => {
                elementwise::silu_mul_part(isa, &gate[at.clone()], &up[at], buffer);
            }
        }
        buffer
    }
}
