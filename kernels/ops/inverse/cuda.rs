//! The CUDA form of `Inverse`; a singular matrix gives NaN, as a kernel can't fail.

use planish_cuda::elementwise::inverse;
use planish_ir::Tensor;

use super::not_square;
use crate::ops::support::cuda::{Made, Outputs, kernel, like, number};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

fn run(_: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let n = match *x.shape() {
        [.., rows, columns] if rows == columns => rows,
        [.., rows, columns] => return Err(not_square(rows, columns)),
        _ => return Err(OpError::shape("only matrices have inverses")),
    };
    let y = like(context, x)?;
    let matrices = x.n_elements() / (n * n).max(1);
    inverse(context.gpu, number(x.dtype())?, (x.ptr(), y.ptr()), (matrices, n))?;
    Ok(vec![y])
}
