//! The CUDA form of `Pad`.

use planish_cuda::elementwise::{PadMode, pad};
use planish_ir::Tensor;

use super::{padded, per_axis};
use crate::ops::common::axes::list;
use crate::ops::support::cuda::{Made, Outputs, host_inputs, kernel, width};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    // Before opset 11 the fill value was an attribute.
    if mode(op).is_none() || op.node.float("value", 0.0) != 0.0 {
        return Ok(None);
    }
    kernel(op, run, &[1, 3])
}

fn mode(op: &OpNode) -> Option<PadMode> {
    Some(match op.node.str("mode", "constant") {
        "constant" => PadMode::Constant,
        "edge" => PadMode::Edge,
        "reflect" => PadMode::Reflect,
        "wrap" => PadMode::Wrap,
        _ => return None,
    })
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let host = host_inputs(inputs);
    let pads = list(op, &host, 1, "pads")?.ok_or(OpError::MissingInput(1))?;
    let at = inputs.optional_host(3).map(Tensor::to_i64_vec).transpose()?;
    let sides = per_axis(&pads, at, x.shape().len())?;
    let y = context.tensor(x.dtype(), padded(x.shape(), &sides)?)?;
    let fill = inputs.optional(2);
    if fill.is_some_and(|fill| fill.n_elements() != 1 || fill.dtype() != x.dtype()) {
        return Err(OpError::shape("the fill value is not a single element of the input's type"));
    }
    let before: Vec<i64> = sides.iter().map(|(before, _)| *before).collect();
    let how = (mode(op).unwrap_or(PadMode::Constant), fill.map(crate::GpuTensor::ptr));
    let (from, to) = ((x.ptr(), x.shape()), (y.ptr(), y.shape()));
    pad(context.gpu, width(x), from, how, &before, to)?;
    Ok(vec![y])
}
