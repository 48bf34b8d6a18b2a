//! The fast form of `AddRMSNorm`.

use planish_cpu::{Isa, Residual, rms_norm};
use planish_ir::Tensor;

use super::EPSILON;
use crate::kernel::required;
use crate::ops::support::held::Held;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct AddRmsNorm {
    epsilon: f32,
    weight: Held,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let epsilon = op.node.float("epsilon", EPSILON);
    Ok(Some(Box::new(AddRmsNorm { epsilon, weight: Held::new(constants, 2)? })))
}

impl Kernel for AddRmsNorm {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let (x, skip) = (required(inputs, 0)?, required(inputs, 1)?);
        let shape = x.shape().to_vec();
        if skip.shape() != shape {
            return Err(OpError::shape(format!("{:?} + {:?}", shape, skip.shape())));
        }
        let weight = self.weight.vector(inputs, shape.last().copied().unwrap_or(1))?;
        let (data, add) = (x.as_slice::<f32>()?, skip.as_slice::<f32>()?);
        let (mut y, mut sum) = (context.f32s(data.len())?, context.f32s(data.len())?);
        let residual = Residual { add: &add, sum: sum.as_mut() };
        let (pool, isa) = (context.pool, Isa::best());
        rms_norm(pool, isa, &data, Some(residual), &weight, self.epsilon, y.as_mut());
        Ok(vec![context.f32_tensor(y, shape.clone())?, context.f32_tensor(sum, shape)?])
    }

    fn owns_input(&self, index: usize) -> bool {
        self.weight.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes()
    }
}
