//! Float inputs that a CUDA kernel keeps on the device when they are constants.

use planish_cuda::Element;
use planish_ir::{DataType, Tensor};

use crate::cuda_kernel::{dtype_of, upload};
use crate::{CudaInputs, CudaPrepare, GpuTensor, OpError};

/// A float input, kept as `element` if it was a constant, else read at each run.
pub(in crate::ops) struct HeldOnDevice {
    index: usize,
    kept: Option<GpuTensor>,
}

impl HeldOnDevice {
    /// The input at `index`.
    pub fn new(
        prepare: &CudaPrepare<'_>,
        constants: &[Option<Tensor>],
        index: usize,
        element: Element,
    ) -> Result<Self, OpError> {
        let constant = crate::op::optional(constants, index).filter(|t| t.dtype().is_float());
        let kept = constant.map(|t| upload(prepare.gpu, t, element)).transpose()?;
        Ok(Self { index, kept })
    }

    /// Whether the kernel keeps the input at `index`.
    pub fn owns(&self, index: usize) -> bool {
        index == self.index && self.kept.is_some()
    }

    /// The kept form, if the input was a constant.
    pub fn kept(&self) -> Option<&GpuTensor> {
        self.kept.as_ref()
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, GpuTensor::n_bytes)
    }

    /// The kept form, or what this run was given, if the input is there.
    pub fn optional<'a>(&'a self, inputs: CudaInputs<'a>) -> Option<&'a GpuTensor> {
        self.kept.as_ref().or_else(|| inputs.optional(self.index))
    }

    /// The kept form, or what this run was given.
    pub fn get<'a>(&'a self, inputs: CudaInputs<'a>) -> Result<&'a GpuTensor, OpError> {
        self.optional(inputs).ok_or(OpError::MissingInput(self.index))
    }

    /// As [`HeldOnDevice::get`], for a vector of `n` elements of the engine's type.
    pub fn vector<'a>(
        &'a self,
        inputs: CudaInputs<'a>,
        n: usize,
        element: Element,
    ) -> Result<&'a GpuTensor, OpError> {
        let tensor = self.get(inputs)?;
        if tensor.n_elements() != n || tensor.dtype() != dtype_of(element) {
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
            return Err(OpError::shape(format!("{dtype} {shape:?} where {n} floats are needed")));
        }
        Ok(tensor)
    }
}

/// How a float tensor on the device is stored.
pub(in crate::ops) fn element_of(tensor: &GpuTensor) -> Result<Element, OpError> {
    match tensor.dtype() {
        DataType::F32 => Ok(Element::F32),
        DataType::F16 => Ok(Element::F16),
        DataType::BF16 => Ok(Element::BF16),
        other => Err(OpError::unsupported(format!("{other} where floats are needed"))),
    }
}

/// Fails unless `tensor` is stored as the engine stores floats.
pub(in crate::ops) fn check_element(tensor: &GpuTensor, element: Element) -> Result<(), OpError> {
    if tensor.dtype() == dtype_of(element) {
        return Ok(());
    }
    Err(OpError::unsupported(format!("{} where {element:?} is needed", tensor.dtype())))
}

/// The shape of `tensor` with another last axis.
pub(in crate::ops) fn with_last(tensor: &GpuTensor, last: usize) -> Vec<usize> {
    let mut shape = tensor.shape().to_vec();
    match shape.last_mut() {
        Some(size) => *size = last,
        None => shape.push(last),
    }
    shape
}
