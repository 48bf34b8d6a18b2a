//! Operators that give the same elements another shape: `Reshape`, `Flatten`, `Squeeze`,
//! `Unsqueeze`.

use planish_ir::{Tensor, ValueId};

use crate::op::required;
use crate::ops::common::fallback::Fallback;
use crate::{CpuContext, Fact, GradNode, GradScope, Kernel, OpDef, OpError, OpNode};

mod cuda;
mod flatten;
mod squeeze;
mod target;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Reshape", target::infer, eval).with_cpu(cpu).with_cuda(cuda::cuda).with_grad(grad),
    OpDef::new("Flatten", flatten::infer, eval).with_cpu(cpu).with_cuda(cuda::cuda).with_grad(grad),
    OpDef::new("Squeeze", squeeze::infer_squeeze, eval)
        .with_cpu(cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad),
    OpDef::new("Unsqueeze", squeeze::infer_unsqueeze, eval)
        .with_cpu(cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad),
];

/// The shape that the node gives its input.
fn target(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<usize>, OpError> {
    target_of(op, inputs, required(inputs, 0)?.shape())
}

/// The same for an input of shape `shape`, which itself is not read.
fn target_of(
    op: &OpNode,
    inputs: &[Option<Tensor>],
    shape: &[usize],
) -> Result<Vec<usize>, OpError> {
    match op.node.op_type.as_str() {
        "Reshape" => target::target(op, inputs, shape),
        "Flatten" => flatten::target(op, shape),
        "Squeeze" => squeeze::squeezed(op, inputs, shape),
        _ => squeeze::unsqueezed(op, inputs, shape),
    }
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![required(inputs, 0)?.reshaped(target(op, inputs)?)?])
}

/// The evaluation copies no elements, so it is the fast form as well.
struct View(Fallback);

impl Kernel for View {
    fn run(&self, _: &mut CpuContext, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        self.0.run(inputs)
    }
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(View(Fallback::new(op, eval)))))
}

/// What is known of `x` under another shape: the same elements.
fn viewed(x: &Fact, shape: Option<Vec<planish_ir::Dim>>) -> Fact {
    let is_list = shape.as_ref().is_some_and(|shape| shape.len() <= 1);
    match (&x.dims, x.dtype) {
        (Some(dims), Some(_)) if is_list => {
            super::common::facts::with_dims(x.dtype, shape, Some(dims.clone()))
        }
        _ => Fact::new(x.dtype, shape),
    }
}

/// dX is dY in the shape of X.
fn grad(scope: &mut GradScope, node: &GradNode) -> Result<Vec<Option<ValueId>>, OpError> {
    node.first(|| scope.reshape_like(node.gradient()?, node.input(0)?))
}
