//! The factors of a transform, for kernels.

use planish_ir::Tensor;

use super::held::{Held, View};
use crate::OpError;

/// P1 at input `first` and P2 after it. An absent factor is the identity.
pub(in crate::ops) struct Factors {
    p1: Held,
    p2: Held,
}

impl Factors {
    /// Keeps those that are constant.
    pub fn new(constants: &[Option<Tensor>], first: usize) -> Result<Self, OpError> {
        Ok(Self { p1: Held::new(constants, first)?, p2: Held::new(constants, first + 1)? })
    }

    /// Whether the input at `index` is kept.
    pub fn owns(&self, index: usize) -> bool {
        self.p1.owns(index) || self.p2.owns(index)
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.p1.bytes() + self.p2.bytes()
    }

    /// Calls `f` with the transform for the rows of `x`, sizes checked.
    pub fn with<R>(
        &self,
        inputs: &[Option<&Tensor>],
        x: &Tensor,
        f: impl FnOnce(planish_cpu::Kronecker) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        let n = x.shape().last().copied().unwrap_or(0);
        let (p1, p2) = (self.p1.get_optional(inputs)?, self.p2.get_optional(inputs)?);
        let size = |p: &Option<View>| p.as_ref().map(|(_, shape)| square(shape)).transpose();
        let (n1, n2) = match (size(&p1)?, size(&p2)?) {
            (Some(n1), Some(n2)) => (n1, n2),
            (Some(n1), None) => (n1, n.checked_div(n1).unwrap_or(0)),
            (None, Some(n2)) => (n.checked_div(n2).unwrap_or(0), n2),
            (None, None) => (1, n),
        };
        if n1 * n2 != n || n == 0 {
            return Err(OpError::shape(format!("{n} channels are not {n1} by {n2}")));
        }
        let p1 = p1.as_ref().map(|(data, _)| data.as_ref());
        let p2 = p2.as_ref().map(|(data, _)| data.as_ref());
        f(planish_cpu::Kronecker { n1, n2, p1, p2 })
    }
}

fn square(shape: &[usize]) -> Result<usize, OpError> {
    match *shape {
        [n, m] if n == m => Ok(n),
        _ => Err(OpError::shape(format!("a transform must be square, not {shape:?}"))),
    }
}
