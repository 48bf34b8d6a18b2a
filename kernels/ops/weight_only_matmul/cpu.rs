//! The fast form of `WeightOnlyMatMul`, with weights packed once.

use std::borrow::Cow;

use planish_cpu::{Isa, MAX_K, PackedWeights, Precision, wgemm};
use planish_ir::{DataType, Tensor};

use super::{block_size, is_transposed};
use crate::kernel::required;
use crate::op::optional;
use crate::ops::support::held::Held;
use crate::ops::support::{Dense, packed, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

struct WeightOnlyMatMul {
    weight: PackedWeights,
    bias: Held,
    precision: Precision,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let (Some(w), Some(scales)) = (optional(constants, 1), optional(constants, 2)) else {
        return Ok(None);
    };
    kernel(packed::pack(w, scales, is_transposed(op), block_size(op)?)?, Held::new(constants, 3)?)
}

/// A kernel for a packed weight at inputs 1 and 2.
pub(in crate::ops) fn kernel(
    weight: PackedWeights,
    bias: Held,
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    // 16-bit activations let the integer kernels read each weight once at the memory's pace.
    let precision = if weight.k() <= MAX_K { Precision::Fixed16 } else { Precision::Exact };
    Ok(Some(Box::new(WeightOnlyMatMul { weight, bias, precision })))
}

impl Kernel for WeightOnlyMatMul {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let data = match x.dtype() {
            DataType::F32 => x.as_slice::<f32>()?,
            _ => Cow::Owned(x.to_f32_vec()?),
        };
        let (k, n) = (self.weight.k(), self.weight.n());
        rows::count(x, k)?;
        let bias = match self.bias.get_optional(inputs)? {
            Some(_) => Some(self.bias.vector(inputs, n)?),
            None => None,
        };
        let y = rows::f32_output(context, rows::with_last(x, n), |y| {
            let (pool, isa) = (context.pool, Isa::best());
            wgemm(pool, isa, self.precision, &data, &self.weight, bias.as_deref(), y);
        })?;
        if x.dtype() == DataType::F32 {
            return Ok(vec![y]);
        }
        Ok(vec![Dense::read(&y)?.into_tensor(x.dtype())?])
    }

    fn owns_input(&self, index: usize) -> bool {
        index == 1 || index == 2 || self.bias.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes() + self.bias.bytes()
    }
}
