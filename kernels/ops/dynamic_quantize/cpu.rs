//! The fast form of `DynamicQuantize`.

use planish_cpu::{Isa, QuantSpec, quantize_rows};
use planish_ir::Tensor;

use crate::kernel::required;
use crate::ops::support::quant::Quantiser;
use crate::ops::support::rows;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct DynamicQuantize {
    spec: QuantSpec,
}

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(DynamicQuantize { spec: Quantiser::read(op)?.spec() })))
}

impl Kernel for DynamicQuantize {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let data = x.as_slice::<f32>()?;
        let n = x.shape().last().copied().unwrap_or(1);
        rows::code_outputs(context, x, |codes, scales| {
            quantize_rows(context.pool, Isa::best(), &data, n, self.spec, codes, scales);
        })
    }
}
