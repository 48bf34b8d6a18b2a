//! The CUDA form of `SwiGLUTransformQuantize`.

use planish_cuda::transform::RowSource;
use planish_ir::Tensor;

use crate::ops::support::cuda_held::check_element;
use crate::ops::support::cuda_transform::{CudaFactors, Made};
use crate::ops::support::quant::Quantiser;
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

struct SwigluTransformQuantize {
    factors: CudaFactors,
    quantiser: Quantiser,
}

pub(super) fn cuda(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    Ok(Some(Box::new(SwigluTransformQuantize {
        factors: CudaFactors::new(prepare, constants, 2)?,
        quantiser: Quantiser::read(op)?,
    })))
}

impl CudaKernel for SwigluTransformQuantize {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let (gate, up) = (inputs.device(0)?, inputs.device(1)?);
        check_element(up, context.element)?;
        if gate.shape() != up.shape() {
            return Err(OpError::shape("gate and up must have the same shape"));
        }
        let source = RowSource::SwiGlu { gate: gate.ptr(), up: up.ptr(), stride: gate.last() };
        self.factors.run(context, inputs, gate, source, Made::Codes(self.quantiser))
    }

    fn owns_input(&self, index: usize) -> bool {
        self.factors.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.factors.bytes()
    }
}
