//! The CUDA form of all quantised products: one or more pairs of weight and scale for the same
//! codes, and maybe a residual.

use planish_cuda::WeightOrder;
use planish_ir::Tensor;

use crate::ops::support::cuda_packed::{Left, PackedProducts};
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

struct QuantizedProducts {
    products: PackedProducts,
    /// Input of the residual.
    residual: Option<usize>,
}

/// `QuantizedMatMul`, `BlockQuantizedMatMul`, `QuantizedMatMulN`: codes, a_scale, and pairs.
pub(in crate::ops) fn cuda(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    make(op, prepare, constants, None)
}

/// `QuantizedMatMulAdd`: codes, a_scale, one pair, residual.
pub(in crate::ops) fn with_residual(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    make(op, prepare, constants, Some(4))
}

fn make(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
    residual: Option<usize>,
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    let end = residual.unwrap_or(constants.len());
    let pairs: Vec<[Option<Tensor>; 2]> = constants[..end.min(constants.len())]
        .get(2..)
        .unwrap_or_default()
        .chunks(2)
        .map(|pair| [pair[0].clone(), pair.get(1).cloned().flatten()])
        .collect();
    let block_size = usize::try_from(op.node.int("block_size", 0)).unwrap_or(0);
    let products = PackedProducts::new(prepare, &pairs, block_size, WeightOrder::Kn)?;
    Ok(products.map(|products| -> Box<dyn CudaKernel> {
        Box::new(QuantizedProducts { products, residual })
    }))
}

impl CudaKernel for QuantizedProducts {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let left = Left::Codes(inputs.device(0)?, inputs.device(1)?);
        let residual = self.residual.map(|index| inputs.device(index)).transpose()?;
        self.products.run(context, left, None, residual)
    }

    fn owns_input(&self, index: usize) -> bool {
        index >= 2 && self.residual != Some(index)
    }

    fn weight_bytes(&self) -> usize {
        self.products.bytes()
    }
}
