//! The CUDA forms of the gradients of the transforms, in products of matrices.

use planish_cuda::elementwise::{Reduce, reduce};
use planish_ir::Tensor;

use crate::ops::matmul::Plan;
use crate::ops::support::cuda::{Made, Outputs, kernel, number};
use crate::ops::support::cuda_kronecker::CudaKronecker;
use crate::ops::support::cuda_products::{CudaFactor, multiply};
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (dy, x, p1) = (inputs.device(0)?, inputs.device(1)?, inputs.device(2)?);
    let p2 = inputs.optional(3);
    let (n1, rows) = (p1.last(), x.rows());
    let n2 = p2.map_or_else(|| x.last() / n1.max(1), GpuTensor::last);
    let fits = n1 * n2 == x.last()
        && p1.shape() == [n1, n1]
        && p2.is_none_or(|p2| p2.shape() == [n2, n2])
        && dy.shape() == x.shape();
    if !fits {
        let (dy, x, p1) = (dy.shape(), x.shape(), p1.shape());
        return Err(OpError::shape(format!("dY is {dy:?}, X {x:?}, P1 {p1:?}")));
    }
    let factors = CudaKronecker { p1: Some(p1), p2, n1, n2 };
    if factors.suits(context, x) {
        if op.n_outputs() == 1 {
            return Ok(vec![factors.transform(context, dy, true)?]);
        }
        let (dx, of_factors) = factors.gradients(context, x, dy)?;
        let mut outputs = vec![dx];
        outputs.extend(of_factors.into_iter().flatten());
        outputs.truncate(op.n_outputs());
        return Ok(outputs);
    }
    let matrices = [rows, n1, n2];
    let (g, x3) = (dy.reshaped(matrices.to_vec())?, x.reshaped(matrices.to_vec())?);
    let of = |a: CudaFactor, b: CudaFactor, left: &[usize], right: &[usize]| {
        multiply(context, &Plan::new(left, right)?, 1.0, a, b, None)
    };
    // W = G·P2ᵀ, dX = P1·W, dP1 = Σ X̃·Wᵀ.
    let w = match p2 {
        Some(p2) => of(plain(&g), turned(p2), &matrices, &[n2, n2])?,
        None => g.clone(),
    };
    let dx = of(plain(p1), plain(&w), &[n1, n1], &matrices)?;
    let mut outputs = vec![dx.reshaped(x.shape().to_vec())?];
    if op.n_outputs() > 1 {
        let terms = of(plain(&x3), turned(&w), &matrices, &[rows, n2, n1])?;
        outputs.push(sum(context, &terms)?);
    }
    // dP2 = Σ X̃ᵀ·(P1·G).
    if p2.is_some() && op.n_outputs() > 2 {
        let h = of(plain(p1), plain(&g), &[n1, n1], &matrices)?;
        let terms = of(turned(&x3), plain(&h), &[rows, n2, n1], &matrices)?;
        outputs.push(sum(context, &terms)?);
    }
    Ok(outputs)
}

fn plain(tensor: &GpuTensor) -> CudaFactor<'_> {
    CudaFactor { tensor, transposed: false }
}

fn turned(tensor: &GpuTensor) -> CudaFactor<'_> {
    CudaFactor { tensor, transposed: true }
}

/// The sum over the first axis.
fn sum(context: &CudaContext, terms: &GpuTensor) -> Result<GpuTensor, OpError> {
    let y = context.tensor(terms.dtype(), terms.shape()[1..].to_vec())?;
    let how = (Reduce::Sum, number(terms.dtype())?);
    let reduced = [true, false, false];
    reduce(context.gpu, how, (terms.ptr(), terms.shape()), &reduced, y.ptr())?;
    Ok(y)
}
