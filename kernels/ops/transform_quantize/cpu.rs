//! The fast form of the quantising transforms.

use planish_cpu::{Isa, QuantSpec, RowSource, transform_quantize};
use planish_ir::Tensor;

use crate::kernel::required;
use crate::ops::support::factors::Factors;
use crate::ops::support::quant::Quantiser;
use crate::ops::support::rows;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct TransformQuantize {
    factors: Factors,
    spec: QuantSpec,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let factors = Factors::new(constants, 1)?;
    Ok(Some(Box::new(TransformQuantize { factors, spec: Quantiser::read(op)?.spec() })))
}

impl Kernel for TransformQuantize {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let data = x.as_slice::<f32>()?;
        let source = RowSource::Plain(&data);
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
