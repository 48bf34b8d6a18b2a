//! The CUDA form of `TransformQuantize`, `TransformLeftQuantize`, `DynamicQuantize`, `Transform`
//! and `TransformLeft`: rows of input 0, factors at 1 and 2.

use planish_cuda::transform::RowSource;
use planish_ir::Tensor;

use crate::ops::support::cuda_transform::{CudaFactors, Made};
use crate::ops::support::quant::Quantiser;
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

struct Transform {
    factors: CudaFactors,
    made: Made,
}

/// With codes.
pub(in crate::ops) fn cuda(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    make(prepare, constants, Made::Codes(Quantiser::read(op)?))
}

/// Without quantisation.
pub(in crate::ops) fn values(
    _: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    make(prepare, constants, Made::Values)
}

fn make(
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
    made: Made,
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    let factors = CudaFactors::new(prepare, constants, 1)?;
    Ok(Some(Box::new(Transform { factors, made })))
}

impl CudaKernel for Transform {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let x = inputs.device(0)?;
        self.factors.run(context, inputs, x, RowSource::Plain { x: x.ptr() }, self.made)
    }

    fn owns_input(&self, index: usize) -> bool {
        self.factors.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.factors.bytes()
    }
}
