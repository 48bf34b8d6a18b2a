//! The CUDA form of `NormTransformQuantize`.

use planish_cuda::transform::RowSource;
use planish_ir::Tensor;

use super::EPSILON;
use crate::ops::support::cuda_held::HeldOnDevice;
use crate::ops::support::cuda_transform::{CudaFactors, Made};
use crate::ops::support::quant::Quantiser;
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

struct NormTransformQuantize {
    epsilon: f32,
    weight: HeldOnDevice,
    factors: CudaFactors,
    quantiser: Quantiser,
}

pub(super) fn cuda(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    Ok(Some(Box::new(NormTransformQuantize {
        epsilon: op.node.float("epsilon", EPSILON),
        weight: HeldOnDevice::new(prepare, constants, 1, prepare.element)?,
        factors: CudaFactors::new(prepare, constants, 2)?,
        quantiser: Quantiser::read(op)?,
    })))
}

impl CudaKernel for NormTransformQuantize {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let x = inputs.device(0)?;
        let weight = self.weight.vector(inputs, x.last(), context.element)?.ptr();
        let source = RowSource::RmsNorm { x: x.ptr(), weight, epsilon: self.epsilon, add: None };
        self.factors.run(context, inputs, x, source, Made::Codes(self.quantiser))
    }

    fn owns_input(&self, index: usize) -> bool {
        self.weight.owns(index) || self.factors.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes() + self.factors.bytes()
    }
}
