//! Transforms and dynamic quantisation on the device.

use planish_cuda::Element;
use planish_cuda::transform::{Factors, Output, RowSource, TransformRows};
use planish_ir::{DataType, Tensor};

use super::cuda_held::{HeldOnDevice, check_element, element_of, with_last};
use super::quant::Quantiser;
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpError};

/// P1 at input `first` and P2 after it, in f32. An absent factor is the identity.
pub(in crate::ops) struct CudaFactors {
    p1: HeldOnDevice,
    p2: HeldOnDevice,
}

/// What is made of the transformed rows.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Made {
    /// Codes and scales.
    Codes(Quantiser),
    /// The rows.
    Values,
}

impl CudaFactors {
    /// Keeps those that are constant.
    pub fn new(
        prepare: &CudaPrepare<'_>,
        constants: &[Option<Tensor>],
        first: usize,
    ) -> Result<Self, OpError> {
        let held = |index| HeldOnDevice::new(prepare, constants, index, Element::F32);
        Ok(Self { p1: held(first)?, p2: held(first + 1)? })
    }

    /// Whether the input at `index` is kept.
    pub fn owns(&self, index: usize) -> bool {
        self.p1.owns(index) || self.p2.owns(index)
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.p1.bytes() + self.p2.bytes()
    }

    /// Transforms rows from `source`, which has the shape of `x`.
    pub fn run(
        &self,
        context: &CudaContext,
        inputs: CudaInputs<'_>,
        x: &GpuTensor,
        source: RowSource,
        made: Made,
    ) -> Result<Vec<GpuTensor>, OpError> {
        check_element(x, context.element)?;
        let (p1, p2) = (self.p1.optional(inputs), self.p2.optional(inputs));
        let (n1, n2) = sizes(x.last(), p1, p2)?;
        let (tensors, output) = outputs(context, x, made)?;
        let given = p1.or(p2);
        let element = given.map_or(Ok(Element::F32), element_of)?;
        let factors =
            Factors { p1: p1.map(GpuTensor::ptr), p2: p2.map(GpuTensor::ptr), element };
        let (rows, element) = (x.rows(), context.element);
        TransformRows { rows, n1, n2, source, factors, output, element }.launch(context.gpu)?;
        Ok(tensors)
    }
}

fn sizes(
    n: usize,
    p1: Option<&GpuTensor>,
    p2: Option<&GpuTensor>,
) -> Result<(usize, usize), OpError> {
    let size = |p: &GpuTensor| match *p.shape() {
        [n, m] if n == m => Ok(n),
        ref shape => Err(OpError::shape(format!("a transform must be square, not {shape:?}"))),
    };
    let (n1, n2) = match (p1.map(size).transpose()?, p2.map(size).transpose()?) {
        (Some(n1), Some(n2)) => (n1, n2),
        (Some(n1), None) => (n1, n.checked_div(n1).unwrap_or(0)),
        (None, Some(n2)) => (n.checked_div(n2).unwrap_or(0), n2),
        (None, None) => (1, n),
    };
    if n1 * n2 != n || n == 0 {
        return Err(OpError::shape(format!("{n} channels are not {n1} by {n2}")));
    }
    Ok((n1, n2))
}

fn outputs(
    context: &CudaContext,
    x: &GpuTensor,
    made: Made,
) -> Result<(Vec<GpuTensor>, Output), OpError> {
    match made {
        Made::Values => {
            let y = context.floats(x.shape().to_vec())?;
            let output = Output::Values(y.ptr());
            Ok((vec![y], output))
        }
        Made::Codes(Quantiser { bits, clip_min, clip_max }) => {
            let codes = context.tensor(DataType::I8, x.shape().to_vec())?;
            let scale = context.tensor(DataType::F32, with_last(x, 1))?;
            let (to, scales) = (codes.ptr(), scale.ptr());
            let output = Output::Codes { bits, clip_min, clip_max, codes: to, scales };
            Ok((vec![codes, scale], output))
        }
    }
}
