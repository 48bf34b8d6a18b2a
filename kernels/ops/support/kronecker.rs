//! Transforms of rows by a Kronecker product of two matrices, the plain way.

use planish_ir::{Dim, Tensor};

use super::{Dense, dense, facts};
use crate::{Fact, OpError};

/// P1ᵀ · X̃ · P2 for a row taken as X̃ `[n1, n2]` (FlatQuant, Sun et al. 2024, section 3.2).
pub(in crate::ops) struct Kronecker {
    n1: usize,
    n2: usize,
    /// `[n1, n1]`, columns first.
    left: Vec<f32>,
    /// `[n2, n2]`, columns first; `None` for the identity.
    right: Option<Vec<f32>>,
}

impl Kronecker {
    /// For rows of `n`.
    pub fn new(n: usize, p1: &Tensor, p2: Option<&Tensor>) -> Result<Self, OpError> {
        let (n1, n2) = sizes(n, p1, p2)?;
        let right = p2.map(columns).transpose()?;
        Ok(Self { n1, n2, left: columns(p1)?, right })
    }

    /// As [`Kronecker::new`]; `None` without P1.
    pub fn optional(
        n: usize,
        p1: Option<&Tensor>,
        p2: Option<&Tensor>,
    ) -> Result<Option<Self>, OpError> {
        p1.map(|p1| Self::new(n, p1, p2)).transpose()
    }

    /// The transformed row.
    pub fn apply(&self, row: &[f32]) -> Vec<f32> {
        let (n1, n2) = (self.n1, self.n2);
        let times_right = match &self.right {
            None => row.to_vec(),
            Some(right) => {
                let cell = |i: usize| {
                    let (a, b) = (i / n2, i % n2);
                    dense::dot(&row[a * n2..][..n2], &right[b * n2..][..n2]) as f32
                };
                (0..n1 * n2).map(cell).collect()
            }
        };
        let column = |b: usize| (0..n1).map(|a| times_right[a * n2 + b]).collect::<Vec<f32>>();
        let middle: Vec<Vec<f32>> = (0..n2).map(column).collect();
        let cell = |i: usize| dense::dot(&self.left[i / n2 * n1..][..n1], &middle[i % n2]) as f32;
        (0..n1 * n2).map(cell).collect()
    }
}

/// n1 and n2 of rows of `n`; an absent P2 is the identity.
pub(in crate::ops) fn sizes(
    n: usize,
    p1: &Tensor,
    p2: Option<&Tensor>,
) -> Result<(usize, usize), OpError> {
    let n1 = square(p1)?;
    let n2 = match p2 {
        Some(p2) => square(p2)?,
        None => n.checked_div(n1).unwrap_or(0),
    };
    if n1 * n2 != n {
        return Err(OpError::shape(format!("{n} channels are not {n1} by {n2}")));
    }
    Ok((n1, n2))
}

fn square(p: &Tensor) -> Result<usize, OpError> {
    match *p.shape() {
        [n, m] if n == m => Ok(n),
        ref shape => Err(OpError::shape(format!("a transform must be square, not {shape:?}"))),
    }
}

/// The transposed matrix.
fn columns(p: &Tensor) -> Result<Vec<f32>, OpError> {
    let n = square(p)?;
    let p = Dense::read(p)?;
    Ok((0..n * n).map(|i| p.data[i % n * n + i / n]).collect())
}

/// Checks the facts of rows and factors as far as sizes are known.
pub(in crate::ops) fn check(x: &Fact, p1: &Fact, p2: Option<&Fact>) -> Result<(), OpError> {
    for p in [Some(p1), p2].into_iter().flatten() {
        facts::same_size("the second axis of a transform", p.dim(0), p.dim(1))?;
    }
    let n1 = p1.dim(0).and_then(Dim::as_const);
    let (Some(n), Some(n1)) = (x.dim(-1).and_then(Dim::as_const), n1) else { return Ok(()) };
    let fits = match p2 {
        Some(p2) => {
            p2.dim(0).and_then(Dim::as_const).is_none_or(|n2| n1.checked_mul(n2) == Some(n))
        }
        None => n1 > 0 && n % n1 == 0,
    };
    fits.then_some(())
        .ok_or_else(|| OpError::shape(format!("{n} channels do not fit transforms of {n1} rows")))
}
