//! The CUDA forms.

use planish_cuda::elementwise::{self, Reduce};
use planish_ir::Tensor;

use super::{kept, reduced};
use crate::ops::common::axes::list;
use crate::ops::support::cuda::{Made, Outputs, host_inputs, kernel, number};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[1])
}

fn code(op: &OpNode) -> Result<Reduce, OpError> {
    Ok(match op.node.op_type.as_str() {
        "ReduceSum" => Reduce::Sum,
        "ReduceMean" => Reduce::Mean,
        "ReduceMax" => Reduce::Max,
        "ReduceMin" => Reduce::Min,
        "ReduceProd" => Reduce::Prod,
        "ReduceSumSquare" => Reduce::SumSquare,
        "ReduceL1" => Reduce::L1,
        "ReduceL2" => Reduce::L2,
        name => return Err(OpError::unsupported(format!("{name} is unknown"))),
    })
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let given = list(op, &host_inputs(inputs), 1, "axes")?;
    let reduced = reduced(op, given, x.shape().len())?;
    let y = context.tensor(x.dtype(), kept(op, x.shape(), &reduced, &1))?;
    let how = (code(op)?, number(x.dtype())?);
    elementwise::reduce(context.gpu, how, (x.ptr(), x.shape()), &reduced, y.ptr())?;
    Ok(vec![y])
}
