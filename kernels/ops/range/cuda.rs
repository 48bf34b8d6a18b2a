//! The CUDA form of `Range`, for bounds in host memory.

use planish_cuda::elementwise::{Steps, range};
use planish_ir::Tensor;

use super::n_values;
use crate::ops::common::numbers::Numbers;
use crate::ops::support::cuda::{Made, Outputs, kernel, number, stored};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpError, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[0, 1, 2])
}

fn run(_: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let (start, limit, delta) = (inputs.host(0)?, inputs.host(1)?, inputs.host(2)?);
    let n = n_values(start, limit, delta)?;
    let steps = match (Numbers::read(start)?, Numbers::read(delta)?) {
        (Numbers::Ints(start), Numbers::Ints(delta)) => {
            let narrow = |values: Vec<i128>| i64::try_from(values[0]);
            let beyond = |_| OpError::unsupported("a bound beyond 64 bits");
            Steps::Ints(narrow(start).map_err(beyond)?, narrow(delta).map_err(beyond)?)
        }
        (start, delta) => Steps::Floats(start.into_floats()[0], delta.into_floats()[0]),
    };
    let y = context.tensor(stored(start.dtype(), context.element), vec![n])?;
    range(context.gpu, number(y.dtype())?, steps, y.ptr(), n)?;
    Ok(vec![y])
}
