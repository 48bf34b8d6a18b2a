//! Building a tensor out of elements of others, whatever their type.

use bytes::Bytes;
use planish_ir::{DataType, Tensor};

use super::index::count;
use crate::OpError;
use crate::memory::reserve;

/// A tensor of shape `shape` whose elements, in order, are those at the flat indices `indices`
/// of `source`.
///
/// # Errors
/// As [`pick`].
pub(crate) fn take(
    source: &Tensor,
    shape: &[usize],
    indices: impl Iterator<Item = usize>,
) -> Result<Tensor, OpError> {
    pick(&[source], shape, indices.map(|index| (0, index)))
}

/// A tensor of shape `shape` whose elements, in order, are given by pairs of a position in
/// `sources` and a flat index into that tensor. Works for every element type, strings and packed
/// sub-byte elements included.
///
/// # Errors
/// If the sources are of different types, an index is out of bounds, or there are more or fewer
/// indices than elements.
pub(crate) fn pick(
    sources: &[&Tensor],
    shape: &[usize],
    choices: impl Iterator<Item = (usize, usize)>,
) -> Result<Tensor, OpError> {
    let first = sources.first().ok_or(OpError::MissingInput(0))?;
    if let Some(other) = sources.iter().find(|t| t.dtype() != first.dtype()) {
        let (a, b) = (first.dtype(), other.dtype());
        return Err(OpError::unsupported(format!("the inputs are of types {a} and {b}")));
    }
    let n = count(shape)?;
    match first.dtype() {
        DataType::String => pick_strings(sources, shape, choices),
        dtype if dtype.bits() % 8 == 0 => pick_bytes(sources, dtype, n, shape, choices),
        dtype => pick_bits(sources, dtype, n, shape, choices),
    }
}

fn out_of_bounds(index: usize) -> OpError {
    OpError::shape(format!("element {index} is out of bounds"))
}

fn pick_strings(
    sources: &[&Tensor],
    shape: &[usize],
    choices: impl Iterator<Item = (usize, usize)>,
) -> Result<Tensor, OpError> {
    let get = |(s, i): (usize, usize)| {
        let strings = sources.get(s)?.strings()?;
        strings.get(i).cloned()
    };
    let mut strings: Vec<Bytes> = reserve(count(shape)?)?;
    for choice in choices {
        strings.push(get(choice).ok_or_else(|| out_of_bounds(choice.1))?);
    }
    Ok(Tensor::from_strings(shape.to_vec(), strings)?)
}

fn pick_bytes(
    sources: &[&Tensor],
    dtype: DataType,
    n: usize,
    shape: &[usize],
    choices: impl Iterator<Item = (usize, usize)>,
) -> Result<Tensor, OpError> {
    let width = dtype.bits() / 8;
    let mut out: Vec<u8> = reserve(n * width)?;
    for (source, index) in choices {
        let bytes = sources.get(source).and_then(|t| t.bytes().get(index * width..)?.get(..width));
        out.extend_from_slice(bytes.ok_or_else(|| out_of_bounds(index))?);
    }
    Ok(Tensor::new(dtype, shape.to_vec(), Bytes::from(out))?)
}

fn pick_bits(
    sources: &[&Tensor],
    dtype: DataType,
    n: usize,
    shape: &[usize],
    choices: impl Iterator<Item = (usize, usize)>,
) -> Result<Tensor, OpError> {
    let bits = dtype.bits();
    let mask = (1u8 << bits) - 1;
    let n_bytes = (n * bits).div_ceil(8);
    let mut out: Vec<u8> = reserve(n_bytes)?;
    out.resize(n_bytes, 0);
    for (position, (source, index)) in choices.enumerate() {
        let byte = sources.get(source).and_then(|t| t.bytes().get(index * bits / 8));
        let code = byte.ok_or_else(|| out_of_bounds(index))? >> (index * bits % 8) & mask;
        let target = out.get_mut(position * bits / 8).ok_or_else(|| out_of_bounds(position))?;
        *target |= code << (position * bits % 8);
    }
    Ok(Tensor::new(dtype, shape.to_vec(), Bytes::from(out))?)
}
