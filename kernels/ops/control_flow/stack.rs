//! Slices of tensors along an axis, and tensors put together along a new one.

use planish_ir::{DataType, Tensor};

use crate::{OpError, memory};

/// Axis `axis` of `rank`, negative ones counted from the end.
///
/// # Errors
/// If there is no such axis.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, OpError> {
    let wrapped = if axis < 0 { axis + rank as i64 } else { axis };
    let found = usize::try_from(wrapped).ok().filter(|axis| *axis < rank);
    found.ok_or_else(|| OpError::shape(format!("axis {axis} of a tensor of rank {rank}")))
}

/// Bytes of an element, for the types that have whole ones.
fn width(dtype: DataType) -> Result<usize, OpError> {
    match dtype.bits() / 8 {
        0 => Err(OpError::unsupported(format!("{dtype} can't be put together in a loop"))),
        _ if dtype == DataType::String => {
            Err(OpError::unsupported("strings can't be put together in a loop"))
        }
        width => Ok(width),
    }
}

/// Slice `index` of `tensor` along `axis`, without that axis.
///
/// # Errors
/// If the elements are no whole bytes.
pub(super) fn slice(tensor: &Tensor, axis: usize, index: usize) -> Result<Tensor, OpError> {
    let shape = tensor.shape();
    let inner = shape[axis + 1..].iter().product::<usize>() * width(tensor.dtype())?;
    let stride = inner * shape[axis];
    let rest: Vec<usize> = [&shape[..axis], &shape[axis + 1..]].concat();
    if axis == 0 {
        let bytes = tensor.bytes().slice(index * inner..(index + 1) * inner);
        return Ok(Tensor::new(tensor.dtype(), rest, bytes)?);
    }
    let n_outer: usize = shape[..axis].iter().product();
    let mut data = memory::reserve(n_outer * inner)?;
    for outer in 0..n_outer {
        let start = outer * stride + index * inner;
        data.extend_from_slice(&tensor.bytes()[start..start + inner]);
    }
    Ok(Tensor::new(tensor.dtype(), rest, data.into())?)
}

/// Tensors of one type and shape put together along a new axis.
///
/// # Errors
/// If there are none, or they differ.
pub(super) fn stack(parts: &[Tensor], axis: i64) -> Result<Tensor, OpError> {
    let first = parts.first().ok_or_else(|| OpError::shape("nothing to put together"))?;
    let (dtype, shape) = (first.dtype(), first.shape());
    if let Some(other) = parts.iter().find(|t| t.dtype() != dtype || t.shape() != shape) {
        let other = other.shape();
        return Err(OpError::shape(format!("its iterations give shapes {shape:?} and {other:?}")));
    }
    let axis = axis_of(axis, shape.len() + 1)?;
    let inner = shape[axis..].iter().product::<usize>() * width(dtype)?;
    let n_outer: usize = shape[..axis].iter().product();
    let mut data = memory::reserve(n_outer * inner * parts.len())?;
    for outer in 0..n_outer {
        for part in parts {
            data.extend_from_slice(&part.bytes()[outer * inner..(outer + 1) * inner]);
        }
    }
    let stacked = [&shape[..axis], &[parts.len()], &shape[axis..]].concat();
    Ok(Tensor::new(dtype, stacked, data.into())?)
}

/// What is put together of no parts, where a part would be as `fact` says.
///
/// # Errors
/// If the type is not known.
pub(super) fn stack_of_none(fact: &crate::Fact) -> Result<Tensor, OpError> {
    let dtype = fact.dtype.ok_or_else(|| OpError::unsupported("an output of unknown type"))?;
    let sizes = fact.shape.iter().flatten().map(|dim| dim.as_usize().unwrap_or(0));
    let shape = std::iter::once(0).chain(sizes).collect();
    Ok(Tensor::new(dtype, shape, Default::default())?)
}
