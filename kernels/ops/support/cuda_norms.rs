//! Normalisation of rows on the device.

use planish_cuda::elementwise::{Binary, Norm};

use super::cuda::{binary, expand, like, number};
use super::facts;
use crate::ops::common::broadcast;
use crate::{CudaContext, GpuTensor, OpError};

/// A normalisation over the axes from `axis` on.
pub(in crate::ops) struct CudaNorm<'a> {
    pub axis: i64,
    pub epsilon: f32,
    /// Takes the mean away before.
    pub is_centered: bool,
    /// Added to x before.
    pub skip: Option<&'a GpuTensor>,
    /// `[n]`, added to x before.
    pub skip_bias: Option<&'a GpuTensor>,
    /// Multiplied with the result; broadcast.
    pub weight: Option<&'a GpuTensor>,
    /// Added to the result; broadcast.
    pub bias: Option<&'a GpuTensor>,
    /// What was normalised is wanted.
    pub wants_sum: bool,
    /// Mean and inverse deviation are wanted.
    pub wants_statistics: bool,
}

/// What a normalisation gives.
pub(in crate::ops) struct Normalised {
    pub y: GpuTensor,
    /// What was normalised.
    pub sum: Option<GpuTensor>,
    /// `[..., 1, ...]`.
    pub mean: Option<GpuTensor>,
    /// `[..., 1, ...]`.
    pub inverse: Option<GpuTensor>,
}

impl CudaNorm<'_> {
    /// Of x alone, with a weight.
    pub fn rms(axis: i64, epsilon: f32, weight: &GpuTensor) -> CudaNorm<'_> {
        CudaNorm {
            axis,
            epsilon,
            is_centered: false,
            skip: None,
            skip_bias: None,
            weight: Some(weight),
            bias: None,
            wants_sum: false,
            wants_statistics: false,
        }
    }

    /// Runs it on x.
    pub fn run(&self, context: &CudaContext, x: &GpuTensor) -> Result<Normalised, OpError> {
        let axis = facts::axis(self.axis, x.shape().len(), false)?;
        // What is added is broadcast first where it is not of the shape of x.
        let (mut x, mut skip) = (x.clone(), self.skip);
        if let Some(other) = skip.filter(|skip| skip.shape() != x.shape()) {
            (x, skip) = (binary(context, Binary::Add, &x, other)?, None);
        }
        let inner = &x.shape()[axis..];
        let n = inner.iter().product::<usize>();
        let (weight, later_weight) = within(context, self.weight, inner)?;
        let (bias, later_bias) = match later_weight {
            // It is added after what comes later.
            Some(_) => (None, self.bias),
            None => within(context, self.bias, inner)?,
        };
        let mut statistics = x.shape().to_vec();
        statistics[axis..].fill(1);
        let wanted = |wanted: bool, shape: &[usize]| {
            wanted.then(|| context.floats(shape.to_vec())).transpose()
        };
        let y = like(context, &x)?;
        let sum = wanted(self.wants_sum, x.shape())?;
        let mean = wanted(self.wants_statistics, &statistics)?;
        let inverse = wanted(self.wants_statistics, &statistics)?;
        let ptr = |t: &Option<GpuTensor>| t.as_ref().map(GpuTensor::ptr);
        Norm {
            x: x.ptr(),
            skip: skip.map(GpuTensor::ptr),
            skip_bias: self.skip_bias.map(GpuTensor::ptr),
            weight: ptr(&weight),
            bias: ptr(&bias),
            y: y.ptr(),
            sum: ptr(&sum),
            mean: ptr(&mean),
            inverse: ptr(&inverse),
            n,
            rows: if n == 0 { 0 } else { x.n_elements() / n },
            epsilon: self.epsilon,
            is_centered: self.is_centered,
        }
        .run(context.gpu, number(x.dtype())?)?;
        let y = later(context, Binary::Mul, y, later_weight)?;
        Ok(Normalised { y: later(context, Binary::Add, y, later_bias)?, sum, mean, inverse })
    }
}

/// A weight spread over the normalised axes, or, if it reaches beyond, to be taken in later.
fn within<'a>(
    context: &CudaContext,
    weight: Option<&'a GpuTensor>,
    inner: &[usize],
) -> Result<(Option<GpuTensor>, Option<&'a GpuTensor>), OpError> {
    let Some(weight) = weight else { return Ok((None, None)) };
    match broadcast::shapes(weight.shape(), inner) {
        Ok(shape) if shape == inner => Ok((Some(expand(context, weight, inner)?), None)),
        _ => Ok((None, Some(weight))),
    }
}

fn later(
    context: &CudaContext,
    op: Binary,
    y: GpuTensor,
    other: Option<&GpuTensor>,
) -> Result<GpuTensor, OpError> {
    other.map_or(Ok(y.clone()), |other| binary(context, op, &y, other))
}
