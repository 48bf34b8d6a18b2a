//! The CUDA form of `WeightOnlyMatMul`.

use planish_cuda::WeightOrder;
use planish_ir::Tensor;

use super::{block_size, is_transposed};
use crate::ops::support::cuda_held::HeldOnDevice;
use crate::ops::support::cuda_packed::{Left, PackedProducts};
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

struct WeightOnly {
    products: PackedProducts,
    bias: HeldOnDevice,
}

pub(super) fn cuda(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    let constant = |index: usize| constants.get(index).cloned().flatten();
    let order = if is_transposed(op) { WeightOrder::Nk } else { WeightOrder::Kn };
    let pairs = [[constant(1), constant(2)]];
    let size = block_size(op)?.unwrap_or(0);
    let Some(products) = PackedProducts::new(prepare, &pairs, size, order)? else {
        return Ok(None);
    };
    let bias = HeldOnDevice::new(prepare, constants, 3, prepare.element)?;
    Ok(Some(Box::new(WeightOnly { products, bias })))
}

impl CudaKernel for WeightOnly {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let left = Left::Floats(inputs.device(0)?);
        self.products.run(context, left, self.bias.optional(inputs), None)
    }

    fn owns_input(&self, index: usize) -> bool {
        matches!(index, 1 | 2) || self.bias.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.products.bytes() + self.bias.bytes()
    }
}
