//! Tensors as rows, for kernels.

use planish_ir::{DataType, Tensor};

use crate::ops::common::index;
use crate::{CpuContext, OpError};

/// Number of rows of a tensor whose last axis has `n` elements.
pub(in crate::ops) fn count(x: &Tensor, n: usize) -> Result<usize, OpError> {
    match x.shape().split_last() {
        Some((last, outer)) if *last == n => index::count(outer),
        _ => Err(OpError::shape(format!("{:?} has no rows of {n}", x.shape()))),
    }
}

/// The shape of `x` with its last size replaced.
pub(in crate::ops) fn with_last(x: &Tensor, last: usize) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    if let Some(size) = shape.last_mut() {
        *size = last;
    }
    shape
}

/// An f32 output of `shape`, written by `f`.
pub(in crate::ops) fn f32_output(
    context: &CpuContext,
    shape: Vec<usize>,
    f: impl FnOnce(&mut [f32]),
) -> Result<Tensor, OpError> {
    let mut buffer = context.f32s(index::count(&shape)?)?;
    f(buffer.as_mut());
    context.f32_tensor(buffer, shape)
}

/// INT8 codes of the shape of `x` and one scale a row, written by `f`.
pub(in crate::ops) fn code_outputs(
    context: &CpuContext,
    x: &Tensor,
    f: impl FnOnce(&mut [i8], &mut [f32]),
) -> Result<Vec<Tensor>, OpError> {
    let scale_shape = with_last(x, 1);
    let mut codes = context.buffers.take_for::<i8>(x.n_elements())?;
    let mut scales = context.f32s(index::count(&scale_shape)?)?;
    f(codes.as_mut(), scales.as_mut());
    let codes = codes.into_tensor(DataType::I8, x.shape().to_vec())?;
    Ok(vec![codes, context.f32_tensor(scales, scale_shape)?])
}
