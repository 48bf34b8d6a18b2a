//! Gradients of the norms on the device.

use planish_cuda::elementwise::NormGrad;

use super::cuda::{Outputs, like, number};
use super::facts;
use crate::{CudaContext, CudaInputs, OpError, OpNode};

/// dX, dscale and (where centred) dbias of inputs dY, X, scale.
pub(in crate::ops) fn run(
    op: &OpNode,
    context: &CudaContext,
    inputs: CudaInputs<'_>,
    epsilon: f32,
    is_centered: bool,
) -> Outputs {
    let (dy, x, scale) = (inputs.device(0)?, inputs.device(1)?, inputs.device(2)?);
    let axis = facts::axis(op.node.int("axis", -1), x.shape().len(), false)?;
    let n: usize = x.shape()[axis..].iter().product();
    if dy.shape() != x.shape() || scale.n_elements() != n || n == 0 {
        let (dy, x, scale) = (dy.shape(), x.shape(), scale.shape());
        return Err(OpError::shape(format!("dY is {dy:?}, X {x:?}, the scale {scale:?}")));
    }
    let dx = like(context, x)?;
    let sum = |index: usize| (op.n_outputs() > index).then(|| like(context, scale)).transpose();
    let (dscale, dbias) = (sum(1)?, if is_centered { sum(2)? } else { None });
    NormGrad {
        dy: dy.ptr(),
        x: x.ptr(),
        scale: scale.ptr(),
        dx: dx.ptr(),
        dscale: dscale.as_ref().map(crate::GpuTensor::ptr),
        dbias: dbias.as_ref().map(crate::GpuTensor::ptr),
        n,
        rows: x.n_elements() / n,
        epsilon,
        is_centered,
    }
    .run(context.gpu, number(x.dtype())?)?;
    Ok([Some(dx), dscale, dbias].into_iter().flatten().collect())
}
