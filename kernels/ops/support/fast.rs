//! Kernels of operators that nothing needs to be kept for.

use std::borrow::Cow;

use planish_ir::{DataType, Tensor};

use crate::op::EvalFn;
use crate::ops::common::fallback::Fallback;
use crate::{CpuContext, Kernel, OpError, OpNode};

/// The fast form of a node on these inputs; `None` if it has none for their types and shapes.
pub(in crate::ops) type FastFn =
    fn(&OpNode, &CpuContext, &[Option<&Tensor>]) -> Result<Option<Vec<Tensor>>, OpError>;

struct FastKernel {
    fast: FastFn,
    fallback: Fallback,
}

/// A kernel that runs `fast` where it can, and the reference evaluation elsewhere.
pub(in crate::ops) fn kernel(
    op: &OpNode,
    fast: FastFn,
    eval: EvalFn,
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(FastKernel { fast, fallback: Fallback::new(op, eval) })))
}

impl Kernel for FastKernel {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        match (self.fast)(&self.fallback.op(), context, inputs)? {
            Some(outputs) => Ok(outputs),
            None => self.fallback.run(inputs),
        }
    }
}

/// The input at `index`, if it is there.
pub(in crate::ops) fn input<'a>(inputs: &[Option<&'a Tensor>], index: usize) -> Option<&'a Tensor> {
    inputs.get(index).copied().flatten()
}

/// The elements of the input at `index`, if it is there and of type f32.
pub(in crate::ops) fn f32s<'a>(
    inputs: &[Option<&'a Tensor>],
    index: usize,
) -> Option<Cow<'a, [f32]>> {
    input(inputs, index).filter(|t| t.dtype() == DataType::F32)?.as_slice::<f32>().ok()
}
