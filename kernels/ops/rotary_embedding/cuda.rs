//! The CUDA forms.

use planish_cuda::elementwise::{Positions, Rotary};
use planish_ir::Tensor;

use crate::ops::attention::cuda::heads;
use crate::ops::support::cuda::{Made, Outputs, indices, kernel, like, number};
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, onnx, &[])
}

pub(super) fn microsoft(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, contributed, &[])
}

fn onnx(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (x, cos, sin) = (inputs.device(0)?, inputs.device(1)?, inputs.device(2)?);
    let n_heads = usize::try_from(op.node.int("num_heads", 0)).unwrap_or(0);
    let heads = heads(x, n_heads)?;
    let rotated = match usize::try_from(op.node.int("rotary_embedding_dim", 0)) {
        Ok(dim) if dim > 0 => dim,
        _ => heads.size,
    };
    let positions = match inputs.optional(3) {
        Some(ids) => listed(ids, heads.batch, heads.rows)?,
        None => match *cos.shape() {
            [b, s, _] if (b == heads.batch || b == 1) && s == heads.rows => {
                Positions::InOrder { step: if b == 1 { 0 } else { s } }
            }
            ref shape => {
                return Err(OpError::shape(format!("caches {shape:?} without position ids")));
            }
        },
    };
    rotate(op, context, x, (cos, sin), rotated / 2, (n_heads, positions))
}

/// Position ids `[b or 1, s]`.
fn listed(ids: &GpuTensor, batch: usize, seq: usize) -> Result<Positions, OpError> {
    let rows = indices(ids)?;
    match *ids.shape() {
        [1, s] if s == seq => Ok(Positions::Listed { rows, step: 0 }),
        [b, s] if b == batch && s == seq => Ok(Positions::Listed { rows, step: seq }),
        ref shape => Err(OpError::shape(format!(
            "position ids {shape:?} do not fit {batch} sequences of {seq}"
        ))),
    }
}

fn contributed(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (x, ids) = (inputs.device(0)?, inputs.device(1)?);
    let (cos, sin) = (inputs.device(2)?, inputs.device(3)?);
    let n_heads = match usize::try_from(op.node.int("num_heads", 0)) {
        Ok(n) if n > 0 => n,
        _ => x.last() / (2 * cos.last()).max(1),
    };
    let heads = heads(x, n_heads)?;
    let positions = if ids.n_elements() == 1 && heads.rows * heads.batch != 1 {
        Positions::From(indices(ids)?)
    } else {
        listed(&ids.reshaped(vec![heads.batch, heads.rows])?, heads.batch, heads.rows)?
    };
    rotate(op, context, x, (cos, sin), cos.last(), (n_heads, positions))
}

fn rotate(
    op: &OpNode,
    context: &CudaContext,
    x: &GpuTensor,
    (cos, sin): (&GpuTensor, &GpuTensor),
    half: usize,
    (n_heads, positions): (usize, Positions),
) -> Outputs {
    if cos.shape() != sin.shape() || cos.last() != half {
        return Err(OpError::shape(format!("cosines and sines must have {half} columns")));
    }
    let y = like(context, x)?;
    Rotary {
        x: x.ptr(),
        y: y.ptr(),
        heads: heads(x, n_heads)?,
        cosines: cos.ptr(),
        sines: sin.ptr(),
        n_rows: cos.rows(),
        half,
        positions,
        is_interleaved: op.node.int("interleaved", 0) != 0,
    }
    .run(context.gpu, number(x.dtype())?)?;
    Ok(vec![y])
}
