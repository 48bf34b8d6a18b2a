//! The CUDA form of `TransformHeads`.

use planish_cuda::Element;
use planish_cuda::transform::TransformHeads;
use planish_ir::Tensor;

use super::n_heads;
use crate::ops::support::cuda_held::{HeldOnDevice, check_element, element_of};
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

struct Heads {
    matrix: HeldOnDevice,
}

pub(super) fn cuda(
    _: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    let matrix = HeldOnDevice::new(prepare, constants, 1, Element::F32)?;
    Ok(Some(Box::new(Heads { matrix })))
}

impl CudaKernel for Heads {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let (x, p) = (inputs.device(0)?, self.matrix.get(inputs)?);
        check_element(x, context.element)?;
        let &[d, columns] = p.shape() else { return Err(OpError::shape("P must be a matrix")) };
        if d != columns {
            return Err(OpError::shape("P must be square"));
        }
        let y = context.floats(x.shape().to_vec())?;
        let heads = n_heads(x.last(), d)?;
        let (rows, factor, element) = (x.rows(), element_of(p)?, context.element);
        let (x, p, to) = (x.ptr(), p.ptr(), y.ptr());
        TransformHeads { rows, heads, d, x, p, factor, y: to, element }.launch(context.gpu)?;
        Ok(vec![y])
    }

    fn owns_input(&self, index: usize) -> bool {
        self.matrix.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.matrix.bytes()
    }
}
