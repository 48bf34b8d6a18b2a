//! Transforms and dynamic quantisation on the device.

use planish_cuda::Element;
use planish_cuda::transform::{Factors, Output, PackedFactors, RowSource, TransformRows};
use planish_ir::{DataType, Tensor};

use super::cuda_held::{HeldOnDevice, check_element, element_of, with_last};
use super::quant::Quantiser;
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpError};

/// P1 at input `first` and P2 after it, in f32. An absent factor is the identity.
pub(in crate::ops) struct CudaFactors {
    p1: HeldOnDevice,
    p2: HeldOnDevice,
    /// Both, where no factor comes with the run.
    packed: Option<PackedFactors>,
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
        let (p1, p2) = (held(first)?, held(first + 1)?);
        let packed = pack(prepare, p1.kept(), p2.kept())?;
        Ok(Self { p1, p2, packed })
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
        // A factor that was no constant is not among the packed ones.
        let is_whole =
            p1.is_some() == self.p1.kept().is_some() && p2.is_some() == self.p2.kept().is_some();
        let packed = self.packed.as_ref().filter(|_| is_whole).map(PackedFactors::ptr);
        let (p1, p2) = (p1.map(GpuTensor::ptr), p2.map(GpuTensor::ptr));
        let factors = Factors { p1, p2, element, packed };
        let (rows, element) = (x.rows(), context.element);
        TransformRows { rows, n1, n2, source, factors, output, element }.launch(context.gpu)?;
        Ok(tensors)
    }
}

/// Constant factors in the order of the kernels.
pub(in crate::ops) fn pack(
    prepare: &CudaPrepare<'_>,
    p1: Option<&GpuTensor>,
    p2: Option<&GpuTensor>,
) -> Result<Option<PackedFactors>, OpError> {
    let Some(given) = p1.or(p2) else { return Ok(None) };
    let (n1, n2) = (p1.map_or(1, GpuTensor::last), p2.map_or(1, GpuTensor::last));
    let [p1, p2] = [p1, p2].map(|p| p.map(GpuTensor::ptr));
    let factors = Factors { p1, p2, element: element_of(given)?, packed: None };
    Ok(Some(PackedFactors::new(prepare.gpu, n1, n2, &factors)?))
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
