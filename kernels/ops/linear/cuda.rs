//! The CUDA form of `Linear`: few rows are bound by reading the weight and have a kernel of their
//! own, many go to cuBLAS.

use planish_cuda::gemv::{DenseGemv, Gemv};
use planish_ir::{Node, Tensor};

use super::is_transposed;
use crate::cuda_kernel::dtype_of;
use crate::ops::matmul::Plan;
use crate::ops::support::cuda::{Made, Outputs};
use crate::ops::support::cuda_products::{CudaFactor, multiply};
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

/// Most rows of the kernel for few.
const FEW: usize = 8;
/// Elements of a weight from which on reading it is what takes time.
const LARGE: usize = 1 << 16;

struct Linear {
    node: Node,
    opset: i64,
    gemv: Gemv,
}

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    let (node, opset) = (op.node.clone(), op.opset);
    Ok(Some(Box::new(Linear { node, opset, gemv: Gemv::new() })))
}

impl CudaKernel for Linear {
    fn run(&self, context: &mut CudaContext, inputs: CudaInputs<'_>) -> Outputs {
        let (x, w) = (inputs.device(0)?, inputs.device(1)?);
        let transposed = is_transposed(&OpNode { node: &self.node, opset: self.opset });
        let sides = match *w.shape() {
            [n, k] if transposed => [k, n],
            [k, n] => [k, n],
            ref shape => {
                return Err(OpError::shape(format!("a weight must be a matrix, not {shape:?}")));
            }
        };
        let plan = Plan::new(x.shape(), &sides)?;
        let bias = inputs.optional(2);
        let is_few = x.rows() <= FEW && sides[0] * sides[1] >= LARGE;
        let own = dtype_of(context.element);
        if is_few && x.dtype() == own && w.dtype() == own {
            return Ok(vec![self.few(context, &plan, x, w, transposed, bias)?]);
        }
        let x = CudaFactor { tensor: x, transposed: false };
        let w = CudaFactor { tensor: w, transposed };
        Ok(vec![multiply(context, &plan, 1.0, x, w, bias)?])
    }
}

impl Linear {
    fn few(
        &self,
        context: &CudaContext,
        plan: &Plan,
        x: &GpuTensor,
        w: &GpuTensor,
        trans_b: bool,
        bias: Option<&GpuTensor>,
    ) -> Result<GpuTensor, OpError> {
        let y = context.floats(plan.shape.clone())?;
        if bias.is_some_and(|bias| bias.n_elements() != plan.n || bias.dtype() != x.dtype()) {
            return Err(OpError::shape("the bias does not fit the product"));
        }
        let product = DenseGemv {
            rows: x.rows(),
            k: plan.k,
            n: plan.n,
            x: x.ptr(),
            w: w.ptr(),
            trans_b,
            bias: bias.map(GpuTensor::ptr),
            residual: None,
            out: y.ptr(),
            out_stride: plan.n,
            element: context.element,
        };
        self.gemv.dense(context.gpu, &product)?;
        Ok(y)
    }
}
