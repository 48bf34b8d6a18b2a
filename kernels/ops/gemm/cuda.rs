//! The CUDA form of `Gemm`.

use planish_cuda::elementwise::Binary;
use planish_ir::Tensor;

use super::matrix;
use crate::cuda_kernel::upload;
use crate::ops::matmul::Plan;
use crate::ops::support::cuda::{Outputs, binary};
use crate::ops::support::cuda_products::{CudaFactor, multiply};
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

struct Gemm {
    trans: [bool; 2],
    alpha: f32,
    /// β, unless it is 1.
    beta: Option<GpuTensor>,
}

pub(super) fn cuda(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    _: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    let beta = Some(op.node.float("beta", 1.0)).filter(|beta| *beta != 1.0);
    let beta = beta.map(|beta| upload(prepare.gpu, &Tensor::scalar(beta), prepare.element));
    Ok(Some(Box::new(Gemm {
        trans: ["transA", "transB"].map(|name| op.node.int(name, 0) != 0),
        alpha: op.node.float("alpha", 1.0),
        beta: beta.transpose()?,
    })))
}

impl CudaKernel for Gemm {
    fn run(&self, context: &mut CudaContext, inputs: CudaInputs<'_>) -> Outputs {
        let (a, b) = (inputs.device(0)?, inputs.device(1)?);
        let [m, k, ..] = matrix(a.shape(), self.trans[0])?;
        let [k2, n, ..] = matrix(b.shape(), self.trans[1])?;
        let plan = Plan::new(&[m, k], &[k2, n])?;
        let a = CudaFactor { tensor: a, transposed: self.trans[0] };
        let b = CudaFactor { tensor: b, transposed: self.trans[1] };
        let product = multiply(context, &plan, self.alpha, a, b, None)?;
        let Some(c) = inputs.optional(2) else { return Ok(vec![product]) };
        let scaled = self.beta.as_ref().map(|beta| binary(context, Binary::Mul, c, beta));
        let scaled = scaled.transpose()?;
        Ok(vec![binary(context, Binary::Add, &product, scaled.as_ref().unwrap_or(c))?])
    }
}
