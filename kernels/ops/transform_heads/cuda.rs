//! The CUDA form of `TransformHeads`.

use planish_cuda::Element;
use planish_cuda::transform::{PackedFactors, TransformHeads};
use planish_ir::Tensor;

use super::n_heads;
use crate::ops::matmul::Plan;
use crate::ops::support::cuda_held::{HeldOnDevice, check_element, element_of};
use crate::ops::support::cuda_products::{CudaFactor, multiply};
use crate::ops::support::cuda_transform::pack;
use crate::{
    CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode, ProductPrecision,
};

struct Heads {
    matrix: HeldOnDevice,
    packed: Option<PackedFactors>,
}

pub(super) fn cuda(
    _: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    let matrix = HeldOnDevice::new(prepare, constants, 1, Element::F32)?;
    let packed = pack(prepare, None, matrix.kept())?;
    Ok(Some(Box::new(Heads { matrix, packed })))
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
        if context.precision == ProductPrecision::BF16 && context.element == Element::F32 {
            let plan = Plan::new(&[x.n_elements() / d.max(1), d], &[d, d])?;
            let heads = x.reshaped(vec![plan.m, d])?;
            let heads = CudaFactor { tensor: &heads, transposed: false };
            let p = CudaFactor { tensor: p, transposed: false };
            let y = multiply(context, &plan, 1.0, heads, p, None)?;
            return Ok(vec![y.reshaped(x.shape().to_vec())?]);
        }
        let y = context.floats(x.shape().to_vec())?;
        let heads = n_heads(x.last(), d)?;
        let (rows, factor, element) = (x.rows(), element_of(p)?, context.element);
        let (x, p, to) = (x.ptr(), p.ptr(), y.ptr());
        let packed = self.packed.as_ref().map(PackedFactors::ptr);
        TransformHeads { rows, heads, d, x, p, factor, packed, y: to, element }
            .launch(context.gpu)?;
        Ok(vec![y])
    }

    fn owns_input(&self, index: usize) -> bool {
        self.matrix.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.matrix.bytes()
    }
}
