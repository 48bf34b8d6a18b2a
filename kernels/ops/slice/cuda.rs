//! The CUDA form of `Slice`.

use planish_ir::Tensor;

use super::view;
use crate::ops::common::index::strides;
use crate::ops::common::strided::View;
use crate::ops::support::cuda::{Made, Outputs, copy, host_inputs, kernel};
use crate::{CudaContext, CudaInputs, CudaPrepare, OpNode};

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[1, 2, 3, 4])
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let x = inputs.device(0)?;
    let view = view(op, &host_inputs(inputs), x.shape())?;
    let y = match is_one_piece(&view) {
        true => x.part(view.offset, view.shape())?,
        false => copy(context, x, &view)?,
    };
    Ok(vec![y])
}

/// Whether the elements of the view lie side by side.
fn is_one_piece(view: &View) -> bool {
    let shape = view.shape();
    let axes = view.axes.iter().zip(strides(&shape));
    let mut axes = axes.filter(|((size, _), _)| *size != 1);
    !shape.contains(&0) && axes.all(|((_, step), dense)| *step == dense as isize)
}
