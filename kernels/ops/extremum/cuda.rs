//! The CUDA forms.

use planish_cuda::elementwise::{arg, top_k};
use planish_ir::{DataType, Tensor};

use super::arg::kept;
use crate::ops::common::axes::axis;
use crate::ops::common::index::around;
use crate::ops::support::cuda::{Made, Outputs, kernel, number};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    match op.node.op_type.as_str() {
        "TopK" => kernel(op, several, &[1]),
        _ => kernel(op, one, &[]),
    }
}

fn one(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let axis = axis(op.node.int("axis", 0), x.shape().len())?;
    let (outer, size, inner) = around(x.shape(), axis)?;
    let y = context.tensor(DataType::I64, kept(op, x.shape().to_vec(), axis, 1))?;
    let how = (op.node.op_type == "ArgMax", op.node.int("select_last_index", 0) != 0);
    let sizes = [outer, size, inner];
    arg(context.gpu, number(x.dtype())?, (x.ptr(), y.ptr()), sizes, how)?;
    Ok(vec![y])
}

fn several(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let axis = axis(op.node.int("axis", -1), x.shape().len())?;
    let (outer, size, inner) = around(x.shape(), axis)?;
    let k = match inputs.optional_host(1) {
        Some(k) => k.to_i64_vec()?.first().copied().unwrap_or(-1),
        None => op.node.int("k", -1),
    };
    let k = usize::try_from(k).map_err(|_| OpError::shape(format!("the {k} largest")))?;
    let mut shape = x.shape().to_vec();
    shape[axis] = k;
    let values = context.tensor(x.dtype(), shape.clone())?;
    let places = context.tensor(DataType::I64, shape)?;
    let how = (k, op.node.int("largest", 1) != 0);
    let to = (values.ptr(), places.ptr());
    top_k(context.gpu, number(x.dtype())?, x.ptr(), to, [outer, size, inner], how)?;
    Ok(vec![values, places])
}
