//! `Identity`: the input.

use planish_ir::{Tensor, ValueId};

use crate::op::required;
use crate::{CpuContext, Fact, GradNode, GradScope, Kernel, OpDef, OpError, OpNode, kernel};

mod cuda;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("Identity", infer, eval).with_cpu(cpu).with_cuda(cuda::cuda).with_grad(grad)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    Ok(vec![inputs.first().cloned().ok_or(OpError::MissingInput(0))?])
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![required(inputs, 0)?.clone()])
}

struct Identity;

impl Kernel for Identity {
    fn run(&self, _: &mut CpuContext, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![kernel::required(inputs, 0)?.clone()])
    }
}

fn cpu(_: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Identity)))
}

fn grad(_: &mut GradScope, node: &GradNode) -> Result<Vec<Option<ValueId>>, OpError> {
    node.first(|| node.gradient())
}
