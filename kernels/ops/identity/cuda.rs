//! The CUDA form of `Identity`.

use planish_ir::Tensor;

use crate::ops::support::cuda::{Made, kernel};
use crate::{CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, |_, _, inputs| Ok(vec![inputs.device(0)?.clone()]), &[])
}
