//! The fast form of `TransformHeads`: one product with a row a head.

use planish_cpu::{Isa, MatMut, MatRef, sgemm};
use planish_ir::Tensor;

use super::n_heads;
use crate::kernel::required;
use crate::ops::support::held::Held;
use crate::ops::support::rows;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct TransformHeads {
    p: Held,
}

pub(super) fn cpu(
    _: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(TransformHeads { p: Held::new(constants, 1)? })))
}

impl Kernel for TransformHeads {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let data = x.as_slice::<f32>()?;
        let (p, shape) = self.p.get(inputs)?;
        let &[d, columns] = shape else { return Err(OpError::shape("P must be a matrix")) };
        n_heads(x.shape().last().copied().unwrap_or(0), d)?;
        if d != columns {
            return Err(OpError::shape("P must be square"));
        }
        let m = data.len() / d;
        let y = rows::f32_output(context, x.shape().to_vec(), |y| {
            let (a, b) = (MatRef::new(&data, m, d), MatRef::new(&p, d, d));
            sgemm(context.pool, Isa::best(), 1.0, a, b, 0.0, MatMut::new(y, m, d));
        })?;
        Ok(vec![y])
    }

    fn owns_input(&self, index: usize) -> bool {
        self.p.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.p.bytes()
    }
}
