//! The fast form of the transforms.

use planish_cpu::{Isa, RowSource, transform_rows};
use planish_ir::Tensor;

use crate::kernel::required;
use crate::ops::support::factors::Factors;
use crate::ops::support::rows;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct Transform {
    factors: Factors,
}

pub(super) fn cpu(
    _: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Transform { factors: Factors::new(constants, 1)? })))
}

impl Kernel for Transform {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let data = x.as_slice::<f32>()?;
        self.factors.with(inputs, x, |transform| {
            let y = rows::f32_output(context, x.shape().to_vec(), |y| {
                let source = RowSource::Plain(&data);
                transform_rows(context.pool, Isa::best(), source, transform, y);
            })?;
            Ok(vec![y])
        })
    }

    fn owns_input(&self, index: usize) -> bool {
        self.factors.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.factors.bytes()
    }
}
