//! The fast form of `MatMul`.

use planish_ir::Tensor;

use super::Plan;
use crate::kernel::required;
use crate::ops::common::fallback::Fallback;
use crate::ops::support::held::Held;
use crate::ops::support::products::{Factor, batched};
use crate::ops::support::{fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

struct MatMul {
    right: Held,
    fallback: Fallback,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let right = Held::new(constants, 1)?;
    Ok(Some(Box::new(MatMul { right, fallback: Fallback::new(op, super::eval) })))
}

impl Kernel for MatMul {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let a = required(inputs, 0)?;
        let (Some(left), Ok((right, shape))) = (fast::f32s(inputs, 0), self.right.get(inputs))
        else {
            return self.fallback.run(inputs);
        };
        let plan = Plan::new(a.shape(), shape)?;
        let y = rows::f32_output(context, plan.shape.clone(), |y| {
            let factor = |data| Factor { data, transposed: false };
            batched(context, &plan, 1.0, factor(&left), factor(&right), y);
        })?;
        Ok(vec![y])
    }
}
