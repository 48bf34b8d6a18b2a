//! The CUDA form of `Split`.

use planish_ir::Tensor;

use super::sizes;
use crate::ops::common::axes::{axis, list};
use crate::ops::common::index::strides;
use crate::ops::common::strided::View;
use crate::ops::support::cuda::{Made, Outputs, copy, host_inputs, kernel};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[1])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let axis = axis(op.node.int("axis", 0), x.shape().len())?;
    let steps = strides(x.shape());
    // Parts of the outermost axis lie in one piece each.
    let is_outermost = x.shape()[..axis].iter().all(|size| *size == 1);
    let (mut start, mut parts) = (0, Vec::new());
    for n in sizes(op, list(op, &host_inputs(inputs), 1, "split")?, x.shape()[axis])? {
        let mut axes: Vec<(usize, isize)> =
            x.shape().iter().zip(&steps).map(|(n, s)| (*n, *s as isize)).collect();
        axes[axis].0 = n;
        let view = View { offset: start * steps[axis], axes };
        let part = match is_outermost {
            true => x.part(view.offset, view.shape())?,
            false => copy(context, x, &view)?,
        };
        parts.push(part);
        start += n;
    }
    Ok(parts)
}
