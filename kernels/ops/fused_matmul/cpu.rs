//! The fast form of `FusedMatMul`.

use planish_ir::Tensor;

use super::{Attributes, plan};
use crate::ops::support::products::{Factor, batched};
use crate::ops::support::{fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Attributes::read(op)?;
    fast::kernel(op, run, super::eval)
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let attributes = Attributes::read(op)?;
    let ([Some(a), Some(b)], [Some(left), Some(right)]) =
        ([0, 1].map(|i| fast::input(inputs, i)), [0, 1].map(|i| fast::f32s(inputs, i)))
    else {
        return Ok(None);
    };
    let plan = plan(a.shape(), b.shape(), attributes)?;
    let factor = |data, transposed, rank| Factor { data, transposed: transposed && rank > 1 };
    let left = factor(&left[..], attributes.trans_a, a.shape().len());
    let right = factor(&right[..], attributes.trans_b, b.shape().len());
    let y = rows::f32_output(context, plan.shape.clone(), |y| {
        batched(context, &plan, attributes.alpha, left, right, y);
    })?;
    Ok(Some(vec![y]))
}
