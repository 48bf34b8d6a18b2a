//! The fast form of `QuantizedMatMul` and `BlockQuantizedMatMul`, with weights packed once.

use planish_cpu::{Isa, MAX_K, PackedWeights, qgemm};
use planish_ir::Tensor;

use crate::kernel::required;
use crate::op::optional;
use crate::ops::support::{packed, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

/// Codes times one packed weight.
struct QuantizedMatMul {
    weight: PackedWeights,
}

pub(super) fn cpu(
    _: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    kernel(constants, None)
}

/// A kernel for the weight at input 2 and its scales at input 3, if both are constants.
pub(in crate::ops) fn kernel(
    constants: &[Option<Tensor>],
    group: Option<usize>,
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let (Some(w), Some(scales)) = (optional(constants, 2), optional(constants, 3)) else {
        return Ok(None);
    };
    let weight = packed::pack(w, scales, false, group)?;
    if weight.k() > MAX_K {
        return Ok(None);
    }
    Ok(Some(Box::new(QuantizedMatMul { weight })))
}

impl Kernel for QuantizedMatMul {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let (codes, a_scale) = (required(inputs, 0)?, required(inputs, 1)?);
        check(codes, a_scale, self.weight.k())?;
        let (codes_data, scales) = (codes.as_slice::<i8>()?, a_scale.as_slice::<f32>()?);
        let shape = rows::with_last(codes, self.weight.n());
        let y = rows::f32_output(context, shape, |y| {
            let (pool, isa) = (context.pool, Isa::best());
            qgemm(pool, isa, &codes_data, &scales, &self.weight, None, y, false);
        })?;
        Ok(vec![y])
    }

    fn owns_input(&self, index: usize) -> bool {
        index == 2 || index == 3
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes()
    }
}

/// Fails unless the codes are rows of `k` with one scale each.
pub(in crate::ops) fn check(codes: &Tensor, a_scale: &Tensor, k: usize) -> Result<(), OpError> {
    let n_rows = rows::count(codes, k)?;
    if a_scale.n_elements() != n_rows {
        let message = format!("{} scales for {n_rows} rows", a_scale.n_elements());
        return Err(OpError::shape(message));
    }
    Ok(())
}
