//! Row-major f32 arrays, the working form of the reference evaluations.

use half::{bf16, f16};
use planish_ir::{DataType, Tensor};

use crate::OpError;
use crate::ops::common::{broadcast, index};

/// A tensor's elements as f32, with its shape.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Dense {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

impl Dense {
    /// The elements of any real-number tensor.
    pub fn read(tensor: &Tensor) -> Result<Self, OpError> {
        Ok(Self { shape: tensor.shape().to_vec(), data: tensor.to_f32_vec()? })
    }

    /// Zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }

    /// The size of the last axis; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The rows along the last axis.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.data.chunks_exact(self.last().max(1))
    }

    /// Replaces every element by `f` of it and the element of `other`, which broadcasts to this
    /// shape.
    pub fn combine(&mut self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Result<(), OpError> {
        if broadcast::shapes(&other.shape, &self.shape)? != self.shape {
            let message = format!("{:?} does not broadcast to {:?}", other.shape, self.shape);
            return Err(OpError::shape(message));
        }
        let strides = broadcast::strides(&other.shape, &self.shape);
        for (v, at) in self.data.iter_mut().zip(index::coordinates(&self.shape)) {
            *v = f(*v, other.data[index::flat(&at, &strides)]);
        }
        Ok(())
    }

    /// A tensor of the type `dtype`.
    pub fn into_tensor(self, dtype: DataType) -> Result<Tensor, OpError> {
        of_f32(dtype, &self.shape, self.data)
    }
}

/// A tensor of a floating-point type from f32 values.
pub(in crate::ops) fn of_f32(
    dtype: DataType,
    shape: &[usize],
    data: Vec<f32>,
) -> Result<Tensor, OpError> {
    if shape.iter().product::<usize>() != data.len() {
        return Err(OpError::shape(format!("{} elements do not fill {shape:?}", data.len())));
    }
    Ok(match dtype {
        DataType::F32 => Tensor::from_vec(shape, data),
        DataType::F64 => Tensor::from_vec(shape, data.into_iter().map(f64::from).collect()),
        DataType::F16 => Tensor::from_vec(shape, data.into_iter().map(f16::from_f32).collect()),
        DataType::BF16 => Tensor::from_vec(shape, data.into_iter().map(bf16::from_f32).collect()),
        other => return Err(OpError::unsupported(format!("{other} is no floating-point type"))),
    })
}

/// The sum of products of two rows, in f64.
pub(in crate::ops) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
