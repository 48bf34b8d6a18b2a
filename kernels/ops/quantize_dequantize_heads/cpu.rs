//! The fast form of `QuantizeDequantizeHeads`.

use planish_cpu::{Clip, Isa, quantize_dequantize_heads};
use planish_ir::Tensor;

use super::{head_size, n_heads};
use crate::kernel::required;
use crate::ops::support::quant::Quantiser;
use crate::ops::support::rows;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct QuantizeDequantizeHeads {
    quantiser: Quantiser,
    head_size: usize,
}

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let (quantiser, head_size) = (Quantiser::read(op)?, head_size(op)?);
    Ok(Some(Box::new(QuantizeDequantizeHeads { quantiser, head_size })))
}

impl Kernel for QuantizeDequantizeHeads {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let data = x.as_slice::<f32>()?;
        let heads = n_heads(x.shape().last().copied().unwrap_or(0), self.head_size)?;
        let (size, bits) = (self.head_size, self.quantiser.bits);
        let clip = Clip { min: self.quantiser.clip_min, max: self.quantiser.clip_max };
        let y = rows::f32_output(context, x.shape().to_vec(), |y| {
            let (pool, isa) = (context.pool, Isa::best());
            quantize_dequantize_heads(pool, isa, &data, heads, size, bits, clip, y);
        })?;
        Ok(vec![y])
    }
}
