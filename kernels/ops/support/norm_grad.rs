//! What the gradients of the normalisations share.

use std::borrow::Cow;

use planish_ir::{Dim, Tensor, ValueId};

use super::body::Body;
use super::{Dense, facts, fast};
use crate::op::required;
use crate::{Fact, GradNode, OpError, OpNode};

/// Inputs dY, X and scale, the last of the size of the normalised part of X.
pub(in crate::ops) struct Inputs {
    pub dy: Dense,
    pub x: Dense,
    pub scale: Dense,
}

impl Inputs {
    /// Reads and checks them.
    pub fn read(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Self, OpError> {
        let read = |index| Dense::read(required(inputs, index)?);
        let (dy, x, scale) = (read(0)?, read(1)?, read(2)?);
        if dy.shape != x.shape {
            return Err(OpError::shape(format!("dY is {:?}, X {:?}", dy.shape, x.shape)));
        }
        let axis = facts::axis(op.node.int("axis", -1), x.shape.len(), false)?;
        let n: usize = x.shape[axis..].iter().product();
        if scale.data.len() != n || n == 0 {
            let message = format!("a scale of {:?} where {n} elements are needed", scale.shape);
            return Err(OpError::shape(message));
        }
        Ok(Self { dy, x, scale })
    }

    /// The normalised rows of dY and X.
    pub fn rows(&self) -> impl Iterator<Item = (&[f32], &[f32])> {
        let n = self.scale.data.len();
        self.dy.data.chunks_exact(n).zip(self.x.data.chunks_exact(n))
    }
}

/// [`Inputs`] as a kernel reads them: in place.
pub(in crate::ops) struct Fast<'a> {
    pub dy: Cow<'a, [f32]>,
    pub x: Cow<'a, [f32]>,
    pub scale: Cow<'a, [f32]>,
    pub x_shape: &'a [usize],
    pub scale_shape: &'a [usize],
}

impl<'a> Fast<'a> {
    /// `None` if they are not f32 or do not fit: the evaluation says what is wrong.
    pub fn read(op: &OpNode, inputs: &[Option<&'a Tensor>]) -> Result<Option<Self>, OpError> {
        let [Some(dy), Some(x), Some(scale)] = [0, 1, 2].map(|i| fast::f32s(inputs, i)) else {
            return Ok(None);
        };
        let shape = |i| fast::input(inputs, i).map_or(&[][..], Tensor::shape);
        let (x_shape, scale_shape) = (shape(1), shape(2));
        let axis = facts::axis(op.node.int("axis", -1), x_shape.len(), false)?;
        let n: usize = x_shape[axis..].iter().product();
        let fits = shape(0) == x_shape && scale.len() == n && n > 0;
        Ok(fits.then_some(Self { dy, x, scale, x_shape, scale_shape }))
    }
}

/// Facts of dX, and `n_sums` gradients of the shape of the scale; as many as the node lists.
pub(in crate::ops) fn infer(
    op: &OpNode,
    inputs: &[Fact],
    n_sums: usize,
) -> Result<Vec<Fact>, OpError> {
    let (dy, x) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    let scale = facts::required(inputs, 2)?;
    facts::same_size("dY", x.dim(-1), dy.dim(-1))?;
    if let Some(shape) = &x.shape {
        let axis = facts::axis(op.node.int("axis", -1), shape.len(), false)?;
        let (part, given) = (size(&shape[axis..]), scale.shape.as_deref().and_then(size));
        if let (Some(part), Some(given)) = (part, given)
            && part != given
        {
            let message = format!("a scale of {given} elements where {part} are needed");
            return Err(OpError::shape(message));
        }
    }
    let sums = std::iter::repeat_n(facts::like(scale), n_sums);
    Ok(std::iter::once(facts::like(x)).chain(sums).take(op.n_outputs()).collect())
}

/// The number of elements, if it is known.
fn size(shape: &[Dim]) -> Option<usize> {
    shape.iter().map(Dim::as_usize).product()
}

/// The gradient of the normalised rows, `None` if the loss does not depend on them.
///
/// # Errors
/// If it depends on the statistics.
pub(in crate::ops) fn of_rows(node: &GradNode) -> Result<Option<ValueId>, OpError> {
    if (1..node.outputs.len()).any(|i| node.of_output(i).is_some()) {
        return Err(OpError::unsupported("a loss that depends on the statistics of a norm"));
    }
    Ok(node.of_output(0))
}

/// The normalised axes of `x`: from the attribute `axis` on.
pub(in crate::ops) fn axes(body: &mut Body, x: ValueId) -> ValueId {
    let axis = body.int_attribute_or("axis", -1);
    let (zero, one) = (body.int("zero", 0), body.int("one", 1));
    let shape = body.shape("shape", x, 0, None);
    let rank = body.op("rank", "Size", &[shape]);
    let from_end = body.op("from_end", "Less", &[axis, zero]);
    let end = body.op("end", "Where", &[from_end, zero, rank]);
    body.op("axes", "Range", &[axis, end, one])
}

/// 1 / √(mean(x²) + epsilon) over `axes`.
pub(in crate::ops) fn inverse_rms(body: &mut Body, x: ValueId, axes: ValueId) -> ValueId {
    let squares = body.op("squares", "Mul", &[x, x]);
    let mean = body.op("mean_square", "ReduceMean", &[squares, axes]);
    let epsilon = body.float_attribute("epsilon", 1e-5);
    let sum = body.op("mean_square_epsilon", "Add", &[mean, epsilon]);
    let root = body.op("rms", "Sqrt", &[sum]);
    body.op("inverse_rms", "Reciprocal", &[root])
}

/// `terms` summed over all but the normalised axes, in the shape of `scale`.
pub(in crate::ops) fn sum_rows(
    body: &mut Body,
    hint: &str,
    terms: ValueId,
    scale: ValueId,
) -> ValueId {
    let rows = body.ints("rows", &[-1]);
    let part = body.shape("part", scale, 0, None);
    let terms = body.reshape(&format!("{hint}_rows"), terms, &[rows, part]);
    body.sum_first(hint, terms)
}
