//! The CUDA forms of `Expand` and `Tile`.

use planish_ir::Tensor;

use super::{expanded, misfit};
use crate::ops::common::axes;
use crate::ops::common::index::strides;
use crate::ops::common::strided::View;
use crate::ops::support::cuda::{Made, Outputs, copy, expand, kernel};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, if op.node.op_type == "Tile" { tile } else { run }, &[1])
}

fn run(_: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let shape = expanded(x.shape(), inputs.host(1)?)?;
    Ok(vec![expand(context, x, &shape)?])
}

/// Each axis is walked over as two, of which the outer one repeats.
fn tile(_: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let repeats = axes::sizes(&inputs.host(1)?.to_i64_vec()?)?;
    if repeats.len() != x.shape().len() {
        return Err(misfit(&x.shape(), &repeats));
    }
    let steps = strides(x.shape());
    let own = x.shape().iter().zip(&steps).map(|(size, step)| (*size, *step as isize));
    let axes = repeats.iter().zip(own).flat_map(|(n, own)| [(*n, 0), own]).collect();
    let tiled = copy(context, x, &View { offset: 0, axes })?;
    let shape = x.shape().iter().zip(&repeats).map(|(size, n)| size * n).collect();
    Ok(vec![tiled.reshaped(shape)?])
}
