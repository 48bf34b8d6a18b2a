//! The fast form of `NormTransformQuantize`.

use planish_cpu::{Isa, QuantSpec, RowSource, transform_quantize};
use planish_ir::Tensor;

use super::EPSILON;
use crate::kernel::required;
use crate::ops::support::factors::Factors;
use crate::ops::support::held::Held;
use crate::ops::support::quant::Quantiser;
use crate::ops::support::rows;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct NormTransformQuantize {
    eps: f32,
    weight: Held,
    factors: Factors,
    spec: QuantSpec,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(NormTransformQuantize {
        eps: op.node.float("epsilon", EPSILON),
        weight: Held::new(constants, 1)?,
        factors: Factors::new(constants, 2)?,
        spec: Quantiser::read(op)?.spec(),
    })))
}

impl Kernel for NormTransformQuantize {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let data = x.as_slice::<f32>()?;
        let weight = self.weight.vector(inputs, x.shape().last().copied().unwrap_or(1))?;
        let source = RowSource::RmsNorm { x: &data, weight: &weight, eps: self.eps };
        self.factors.with(inputs, x, |transform| {
            rows::code_outputs(context, x, |codes, scales| {
                let (pool, isa) = (context.pool, Isa::best());
                transform_quantize(pool, isa, source, transform, self.spec, codes, scales);
            })
        })
    }

    fn owns_input(&self, index: usize) -> bool {
        self.weight.owns(index) || self.factors.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes() + self.factors.bytes()
    }
}
