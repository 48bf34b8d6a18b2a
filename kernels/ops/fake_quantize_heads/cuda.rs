//! The CUDA forms.

use planish_ir::Tensor;

use super::{head_size, n_heads};
use crate::ops::support::cuda::{Made, Outputs, kernel};
use crate::ops::support::cuda_fake_quantize::{self, CudaGroups};
use crate::ops::support::quant::Quantiser;
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    Quantiser::read(op)?;
    head_size(op)?;
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let is_grad = op.node.op_type == "FakeQuantizeHeadsGrad";
    let x = inputs.device(usize::from(is_grad))?;
    let n = head_size(op)?;
    let len = x.rows() * n_heads(x.last(), n)?;
    let groups = CudaGroups { len, n, step: 1, clips: None, is_asymmetric: true };
    cuda_fake_quantize::run(op, context, inputs, is_grad, &groups)
}
