//! The CUDA form of `QuantizeDequantizeHeads`.

use planish_cuda::transform::QuantizeDequantizeHeads;
use planish_ir::Tensor;

use super::head_size;
use crate::ops::support::cuda_held::check_element;
use crate::ops::support::quant::Quantiser;
use crate::ops::transform_heads::n_heads;
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

struct Heads {
    d: usize,
    quantiser: Quantiser,
}

pub(super) fn cuda(
    op: &OpNode,
    _: &CudaPrepare<'_>,
    _: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    Ok(Some(Box::new(Heads { d: head_size(op)?, quantiser: Quantiser::read(op)? })))
}

impl CudaKernel for Heads {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let x = inputs.device(0)?;
        check_element(x, context.element)?;
        let n_heads = x.rows() * n_heads(x.last(), self.d)?;
        let y = context.floats(x.shape().to_vec())?;
        let Quantiser { bits, clip_min, clip_max } = self.quantiser;
        let (from, to, d, element) = (x.ptr(), y.ptr(), self.d, context.element);
        QuantizeDequantizeHeads { n_heads, d, bits, clip_min, clip_max, x: from, y: to, element }
            .launch(context.gpu)?;
        Ok(vec![y])
    }
}
