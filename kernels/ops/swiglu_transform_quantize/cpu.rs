//! The fast form of `SwiGLUTransformQuantize`.

use planish_cpu::{Isa, QuantSpec, RowSource, transform_quantize};
use planish_ir::Tensor;

use crate::kernel::required;
use crate::ops::support::factors::Factors;
use crate::ops::support::quant::Quantiser;
use crate::ops::support::rows;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct SwiGluTransformQuantize {
    factors: Factors,
    spec: QuantSpec,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let (factors, spec) = (Factors::new(constants, 2)?, Quantiser::read(op)?.spec());
    Ok(Some(Box::new(SwiGluTransformQuantize { factors, spec })))
}

impl Kernel for SwiGluTransformQuantize {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let (x, second) = (required(inputs, 0)?, required(inputs, 1)?);
        if x.shape() != second.shape() {
            return Err(OpError::shape(format!("{:?} · {:?}", x.shape(), second.shape())));
        }
        let (gate, up) = (x.as_slice::<f32>()?, second.as_slice::<f32>()?);
        let source = RowSource::SwiGlu { gate: &gate, up: &up };
        self.factors.with(inputs, x, |transform| {
            rows::code_outputs(context, x, |codes, scales| {
                let (pool, isa) = (context.pool, Isa::best());
                transform_quantize(pool, isa, source, transform, self.spec, codes, scales);
            })
        })
    }

    fn owns_input(&self, index: usize) -> bool {
        self.factors.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.factors.bytes()
    }
}
