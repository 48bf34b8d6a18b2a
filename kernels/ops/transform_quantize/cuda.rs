//! The CUDA form of `TransformQuantize`, `TransformLeftQuantize`, `DynamicQuantize`, `Transform`
//! and `TransformLeft`: rows of input 0, factors at 1 and 2.

use planish_cuda::transform::RowSource;
use planish_ir::Tensor;

use crate::ops::support::cuda_kronecker::CudaKronecker;
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

/// Factors that come with the run.
pub(in crate::ops) fn kronecker<'a>(
    inputs: CudaInputs<'a>,
    x: &GpuTensor,
) -> Option<CudaKronecker<'a>> {
    let (p1, p2) = (inputs.optional(1)?, inputs.optional(2));
    let n1 = p1.last();
    let n2 = p2.map_or_else(|| x.last() / n1.max(1), GpuTensor::last);
    Some(CudaKronecker { p1: Some(p1), p2, n1, n2 })
}

impl CudaKernel for Transform {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let x = inputs.device(0)?;
        let factors = kronecker(inputs, x).filter(|factors| factors.suits(context, x));
        if let (Made::Values, Some(factors)) = (self.made, factors) {
            return Ok(vec![factors.transform(context, x, false)?]);
        }
        self.factors.run(context, inputs, x, RowSource::Plain { x: x.ptr() }, self.made)
    }

    fn owns_input(&self, index: usize) -> bool {
        self.factors.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.factors.bytes()
    }
}
