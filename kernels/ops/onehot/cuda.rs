//! The CUDA form of `OneHot`.

use planish_cuda::elementwise::one_hot;
use planish_ir::{DataType, Tensor};

use crate::ops::common::axes::axis;
use crate::ops::common::numbers::Numbers;
use crate::ops::support::cuda::{Made, Outputs, cast, indices, kernel, width};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[1])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (list, values) = (inputs.device(0)?, inputs.device(2)?);
    let depth = match Numbers::read(inputs.host(1)?)?.into_floats()[..] {
        [depth] if depth >= 0.0 => depth as usize,
        _ => return Err(OpError::shape("the depth is not one size")),
    };
    if values.n_elements() != 2 {
        return Err(OpError::shape("the values are not a pair of off and on"));
    }
    let axis = axis(op.node.int("axis", -1), list.shape().len() + 1)?;
    let mut shape = list.shape().to_vec();
    let (outer, inner) = (shape[..axis].iter().product(), shape[axis..].iter().product());
    shape.insert(axis, depth);
    let list = cast(context, list, DataType::I64)?;
    let y = context.tensor(values.dtype(), shape)?;
    let sizes = [outer, depth, inner];
    one_hot(context.gpu, width(&y), indices(&list)?, values.ptr(), y.ptr(), sizes)?;
    Ok(vec![y])
}
