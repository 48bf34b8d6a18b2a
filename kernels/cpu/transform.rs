//! Kronecker-structured transforms of activation rows, fused with what comes before and with the
//! quantisation after them.

use crate::norm::rms_norm_row;
use crate::pool::ThreadPool;
use crate::quantize::{QuantSpec, quantize_row};
use crate::sgemm::{Block, gemm_block};
use crate::shared::SharedMut;
use crate::{Isa, elementwise, scratch};

/// Values below which rows are not worth another thread.
const MIN_VALUES: usize = 4_096;

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

    /// Row `i`, computed into `buffer` unless it is there already.
    fn row<'b>(&self, isa: Isa, i: usize, n: usize, buffer: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        let at = i * n..(i + 1) * n;
        match *self {
            Self::Plain(x) => return &x[at],
            Self::RmsNorm { x, weight, eps } => rms_norm_row(isa, &x[at], weight, eps, buffer),
            Self::SwiGlu { gate, up } => {
                elementwise::silu_mul_part(isa, &gate[at.clone()], &up[at], buffer);
            }
        }
        buffer
    }
}

/// Transforms the rows of `input` and quantises them: codes into `codes` `[m, n]`, scales into
/// `scales` `[m]`, with n = n1·n2.
///
/// # Panics
/// When the lengths disagree.
pub fn transform_quantize(
    pool: &ThreadPool,
    isa: Isa,
    input: RowSource<'_>,
    transform: Kronecker<'_>,
    spec: QuantSpec,
    codes: &mut [i8],
    scales: &mut [f32],
) {
    let (m, n) = (scales.len(), transform.n());
    assert_eq!(codes.len(), m * n, "transform output length");
    let (codes, scales) = (SharedMut::new(codes), SharedMut::new(scales));
    each_row(pool, isa, input, transform, m, |i, y| {
        // SAFETY: each row is visited once.
        let (codes, scale) = unsafe { (codes.part(i * n..(i + 1) * n), scales.part(i..i + 1)) };
        scale[0] = quantize_row(isa, y, spec, codes);
    });
}

/// Transforms the rows of `input` into `out` `[m, n]`, with n = n1·n2.
///
/// # Panics
/// When the lengths disagree.
pub fn transform_rows(
    pool: &ThreadPool,
    isa: Isa,
    input: RowSource<'_>,
    transform: Kronecker<'_>,
    out: &mut [f32],
) {
    let n = transform.n();
    let m = if n == 0 { 0 } else { out.len() / n };
    assert_eq!(out.len(), m * n, "transform output length");
    let out = SharedMut::new(out);
    each_row(pool, isa, input, transform, m, |i, y| {
        // SAFETY: each row is visited once.
        unsafe { out.part(i * n..(i + 1) * n) }.copy_from_slice(y);
    });
}

/// Calls `f` with each transformed row.
fn each_row(
    pool: &ThreadPool,
    isa: Isa,
    input: RowSource<'_>,
    t: Kronecker<'_>,
    m: usize,
    f: impl Fn(usize, &[f32]) + Sync,
) {
    let n = t.n();
    input.check(m, n);
    t.check();
    if n == 0 {
        return;
    }
    let work = |rows: std::ops::Range<usize>| {
        scratch::with(3 * n, |buffer: &mut [f32]| {
            let (first, rest) = buffer.split_at_mut(n);
            let (second, third) = rest.split_at_mut(n);
            for i in rows {
                let x = input.row(isa, i, n, first);
                f(i, transform_row(isa, t, x, second, third));
            }
        });
    };
    if m * n < 2 * MIN_VALUES {
        work(0..m)
    } else {
        pool.for_each_dynamic(m, MIN_VALUES.div_ceil(n), work)
    }
}

/// P1ᵀ·X̃·P2 of one row, which lies in one of the buffers or, untransformed, where it was.
fn transform_row<'b>(
    isa: Isa,
    t: Kronecker<'_>,
    x: &'b [f32],
    right: &'b mut [f32],
    left: &'b mut [f32],
) -> &'b [f32] {
    let (n1, n2) = (t.n1, t.n2);
    let z = match t.p2 {
        None => x,
        Some(p2) => {
            product(isa, [n1, n2, n2], (x, n2, 1), p2, right);
            right
        }
    };
    match t.p1 {
        None => z,
        Some(p1) => {
            product(isa, [n1, n1, n2], (p1, 1, n1), z, left);
            left
        }
    }
}

/// c\[m, n\] = a\[m, k\]·b\[k, n\] with a's row and column strides and dense b and c.
fn product(
    isa: Isa,
    [m, k, n]: [usize; 3],
    (a, a_row, a_col): (&[f32], usize, usize),
    b: &[f32],
    c: &mut [f32],
) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let block = Block { k, m, n, a, a_row, a_col, b, ldb: n, c, ldc: n, alpha: 1.0, beta: 0.0 };
    // SAFETY: the lengths were checked, and the strides cover the dense matrices.
    unsafe { gemm_block(isa, &block) };
}
