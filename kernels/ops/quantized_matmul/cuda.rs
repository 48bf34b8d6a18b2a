//! The CUDA form of all quantised products: one or more pairs of weight and scale for the same
//! codes, and maybe a residual.

use planish_cuda::WeightOrder;
use planish_ir::Tensor;

use crate::ops::support::cuda_packed::{Left, PackedProducts, TOGETHER};
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

struct QuantizedProducts {
    /// Those that share a launch, in order.
    groups: Vec<PackedProducts>,
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
    let group = |pairs: &[_]| PackedProducts::new(prepare, pairs, block_size, WeightOrder::Kn);
    let groups = pairs.chunks(group_len(&pairs, block_size)).map(group);
    let groups = groups.collect::<Result<Option<Vec<_>>, _>>()?;
    Ok(groups
        .filter(|groups| !groups.is_empty())
        .map(|groups| -> Box<dyn CudaKernel> { Box::new(QuantizedProducts { groups, residual }) }))
}

/// How many products share a launch: scales of blocks, and products that begin within a tile, are
/// taken by themselves.
fn group_len(pairs: &[[Option<Tensor>; 2]], block_size: usize) -> usize {
    let is_whole = |[weight, _]: &[Option<Tensor>; 2]| {
        weight.as_ref().and_then(|w| w.shape().last()).is_some_and(|n| n.is_multiple_of(16))
    };
    if block_size > 0 || !pairs.iter().all(is_whole) { 1 } else { TOGETHER }
}

impl CudaKernel for QuantizedProducts {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let left = Left::Codes(inputs.device(0)?, inputs.device(1)?);
        let residual = self.residual.map(|index| inputs.device(index)).transpose()?;
        let outputs = self.groups.iter().map(|group| group.run(context, left, None, residual));
        Ok(outputs.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn owns_input(&self, index: usize) -> bool {
        index >= 2 && self.residual != Some(index)
    }

    fn weight_bytes(&self) -> usize {
        self.groups.iter().map(PackedProducts::bytes).sum()
    }
}
