//! The CUDA form of `Clip`.

use planish_cuda::elementwise::clip;
use planish_ir::Tensor;

use crate::cuda_kernel::upload;
use crate::ops::support::cuda::{Outputs, like, number};
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

/// The bounds that are attributes, as they were before opset 11.
struct Clip {
    bounds: [Option<GpuTensor>; 2],
}

pub(super) fn cuda(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    _: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    let bound = |name| {
        let value = op.node.attributes.get(name).and_then(|a| a.as_float());
        value.map(|v| upload(prepare.gpu, &Tensor::scalar(v), prepare.element)).transpose()
    };
    Ok(Some(Box::new(Clip { bounds: [bound("min")?, bound("max")?] })))
}

impl CudaKernel for Clip {
    fn run(&self, context: &mut CudaContext, inputs: CudaInputs<'_>) -> Outputs {
        let x = inputs.device(0)?;
        let bound = |i: usize| {
            let Some(bound) = inputs.optional(i).or(self.bounds[i - 1].as_ref()) else {
                return Ok(None);
            };
            if bound.n_elements() != 1 {
                return Err(OpError::shape("a bound is not a single number"));
            }
            if bound.dtype() != x.dtype() {
                return Err(OpError::unsupported("the bounds are not of the input's type"));
            }
            Ok(Some(bound.ptr()))
        };
        let (bounds, y) = ((bound(1)?, bound(2)?), like(context, x)?);
        clip(context.gpu, number(x.dtype())?, x.ptr(), bounds, y.ptr(), x.n_elements())?;
        Ok(vec![y])
    }
}
