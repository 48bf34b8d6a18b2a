//! Reading the facts that inference is given.

use planish_ir::{DataType, Dim};

use crate::fact::MAX_DIMS;
use crate::infer::unknown_dim;
use crate::{Fact, OpError, OpNode};

/// The fact of the input at `index`.
///
/// # Errors
/// If it is absent.
pub(crate) fn required(inputs: &[Fact], index: usize) -> Result<&Fact, OpError> {
    optional(inputs, index).ok_or(OpError::MissingInput(index))
}

/// The fact of the input at `index`, if it is there.
pub(crate) fn optional(inputs: &[Fact], index: usize) -> Option<&Fact> {
    inputs.get(index).filter(|fact| !fact.absent)
}

/// How many elements a list of sizes or axes has, if it is no longer than any that is followed: a
/// file may declare a list of any length, and each element would become a size.
pub(crate) fn list_length(fact: &Fact) -> Option<usize> {
    fact.dim(0)?.as_usize().filter(|n| *n <= MAX_DIMS)
}

/// A shape of `rank` sizes that only a run can tell.
pub(crate) fn unknown_shape(op: &OpNode, rank: usize) -> Vec<Dim> {
    (0..rank).map(|axis| unknown_dim(op.node, axis)).collect()
}

/// The element type that inputs at the positions `which` have in common, as far as known.
///
/// # Errors
/// If two of them differ.
pub(crate) fn common_dtype(inputs: &[&Fact]) -> Result<Option<DataType>, OpError> {
    let mut known = inputs.iter().filter_map(|fact| fact.dtype);
    let Some(first) = known.next() else { return Ok(None) };
    match known.find(|dtype| *dtype != first) {
        Some(other) => {
            Err(OpError::unsupported(format!("the inputs are of types {first} and {other}")))
        }
        None => Ok(Some(first)),
    }
}

/// A fact of the given type and shape that also has the elements `dims`, if these are known,
/// of an integer type and few.
pub(crate) fn with_dims(
    dtype: Option<DataType>,
    shape: Option<Vec<Dim>>,
    dims: Option<Vec<Dim>>,
) -> Fact {
    match (dtype, dims) {
        (Some(dtype), Some(dims))
            if dtype.is_integer()
                && dims.len() <= MAX_DIMS
                && shape.as_deref().is_none_or(|shape| holds(shape, dims.len())) =>
        {
            let rank = shape.map_or(1, |shape| shape.len());
            Fact::of_dims(dtype, rank, dims)
        }
        (dtype, _) => Fact::new(dtype, shape),
    }
}

/// Whether a scalar or list of this shape has `n` elements: what a file says of them may differ.
fn holds(shape: &[Dim], n: usize) -> bool {
    match shape {
        [] => n == 1,
        [size] => size.as_const().is_none_or(|_| size.as_usize() == Some(n)),
        _ => false,
    }
}

/// The product of all sizes.
pub(crate) fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    dims.into_iter().fold(Dim::from(1i64), |product, dim| product.mul(dim))
}

/// Whether `a < b` for all values of the symbols, as far as the signs of the coefficients tell.
pub(crate) fn surely_less(a: &Dim, b: &Dim) -> bool {
    b.sub(a).sub(&Dim::from(1i64)).is_surely_non_negative()
}
