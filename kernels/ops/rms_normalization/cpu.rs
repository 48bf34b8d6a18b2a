//! The fast form of `RMSNormalization` and `SimplifiedLayerNormalization`, for weights of the size
//! of the normalised part.

use planish_cpu::{Isa, rms_norm};
use planish_ir::Tensor;

use super::EPSILON;
use crate::kernel::required;
use crate::op::EvalFn;
use crate::ops::common::fallback::Fallback;
use crate::ops::support::held::Held;
use crate::ops::support::{facts, fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

struct RmsNorm {
    axis: i64,
    epsilon: f32,
    weight: Held,
    fallback: Fallback,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    kernel(op, constants, super::eval)
}

/// A kernel for the weight at input 1.
pub(in crate::ops) fn kernel(
    op: &OpNode,
    constants: &[Option<Tensor>],
    eval: EvalFn,
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let weight = Held::new(constants, 1)?;
    let (axis, epsilon) = (op.node.int("axis", -1), op.node.float("epsilon", EPSILON));
    Ok(Some(Box::new(RmsNorm { axis, epsilon, weight, fallback: Fallback::new(op, eval) })))
}

impl Kernel for RmsNorm {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let axis = facts::axis(self.axis, x.shape().len(), false)?;
        let n: usize = x.shape()[axis..].iter().product();
        let weight = self.weight.get(inputs).ok().filter(|(weight, _)| weight.len() == n && n > 0);
        let (Some(data), Some((weight, _))) = (fast::f32s(inputs, 0), weight) else {
            return self.fallback.run(inputs);
        };
        let y = rows::f32_output(context, x.shape().to_vec(), |y| {
            rms_norm(context.pool, Isa::best(), &data, None, &weight, self.epsilon, y);
        })?;
        Ok(vec![y])
    }
}
