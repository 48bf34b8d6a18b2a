//! The factors of a transform, for kernels.

use planish_ir::Tensor;

use super::held::Held;
use crate::{OpError, OpNode};

/// P1 at input `first`, and P2 after it if the node has it.
pub(in crate::ops) struct Factors {
    p1: Held,
    p2: Option<Held>,
}

impl Factors {
    /// Keeps those that are constant.
    pub fn new(
        op: &OpNode,
        constants: &[Option<Tensor>],
        first: usize,
    ) -> Result<Self, OpError> {
        let has_p2 = op.node.inputs.len() > first + 1 || constants.len() > first + 1;
        let p2 = has_p2.then(|| Held::new(constants, first + 1)).transpose()?;
        Ok(Self { p1: Held::new(constants, first)?, p2 })
    }

    /// Whether the input at `index` is kept.
    pub fn owns(&self, index: usize) -> bool {
        self.p1.owns(index) || self.p2.as_ref().is_some_and(|p2| p2.owns(index))
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.p1.bytes() + self.p2.as_ref().map_or(0, Held::bytes)
    }

    /// Calls `f` with the transform for the rows of `x`, sizes checked.
    pub fn with<R>(
        &self,
        inputs: &[Option<&Tensor>],
        x: &Tensor,
        f: impl FnOnce(planish_cpu::Kronecker) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        let n = x.shape().last().copied().unwrap_or(0);
        let (p1, shape) = self.p1.get(inputs)?;
        let n1 = square(shape)?;
        let p2 = self.p2.as_ref().map(|p2| p2.get(inputs)).transpose()?;
        let n2 = match &p2 {
            Some((_, shape)) => square(shape)?,
            None => n.checked_div(n1).unwrap_or(0),
        };
        if n1 * n2 != n || n == 0 {
            return Err(OpError::shape(format!("{n} channels are not {n1} by {n2}")));
        }
        let p2 = p2.as_ref().map(|(data, _)| data.as_ref());
        f(planish_cpu::Kronecker { n1, n2, p1: Some(&p1), p2 })
    }
}

fn square(shape: &[usize]) -> Result<usize, OpError> {
    match *shape {
        [n, m] if n == m => Ok(n),
        _ => Err(OpError::shape(format!("a transform must be square, not {shape:?}"))),
    }
}
