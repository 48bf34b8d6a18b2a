//! The CUDA form of `CumSum`.

use planish_cuda::elementwise::running_sums;
use planish_ir::Tensor;

use crate::ops::common::axes::axis;
use crate::ops::common::index::around;
use crate::ops::support::cuda::{Made, Outputs, kernel, like, number};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[1])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let list = inputs.host(1)?.to_i64_vec()?;
    let [at] = list[..] else { return Err(OpError::shape("the axis is not one number")) };
    let (outer, size, inner) = around(x.shape(), axis(at, x.shape().len())?)?;
    let y = like(context, x)?;
    let how = ["exclusive", "reverse"].map(|name| op.node.int(name, 0) != 0);
    let (sizes, how) = ([outer, size, inner], (how[0], how[1]));
    running_sums(context.gpu, number(x.dtype())?, (x.ptr(), y.ptr()), sizes, how)?;
    Ok(vec![y])
}
