//! The CUDA forms.

use planish_ir::Tensor;

use super::groups::block_size;
use crate::ops::support::cuda::{Made, Outputs, kernel};
use crate::ops::support::cuda_fake_quantize::{self, CudaGroups};
use crate::ops::support::quant::Quantiser;
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    Quantiser::read(op)?;
    block_size(op)?;
    kernel(op, run, &[])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let is_grad = op.node.op_type == "FakeQuantizeColumnsGrad";
    let w = inputs.device(usize::from(is_grad))?;
    let &[k, columns] = w.shape() else { return Err(OpError::shape("W must be a matrix")) };
    let given = block_size(op)?;
    if given != 0 && !k.is_multiple_of(given) {
        return Err(OpError::shape(format!("{k} rows are not blocks of {given}")));
    }
    let (n, clips) = match given {
        0 => (k, vec![columns]),
        block => (block, vec![k / block, columns]),
    };
    let len = clips.iter().product();
    let groups = CudaGroups { len, n, step: columns, clips: Some(clips), is_asymmetric: false };
    cuda_fake_quantize::run(op, context, inputs, is_grad, &groups)
}
