//! Fast forms of operators on CUDA.

use std::sync::Arc;

use half::{bf16, f16};
use planish_cuda::attention::KvCache;
use planish_cuda::{DeviceBuffer, DevicePtr, Element, Gpu, MemoryPool};
use planish_ir::{DataType, Tensor};

use crate::{OpError, ProductPrecision};

/// A tensor in device memory, row-major without gaps. Floats of the graph are stored as the
/// engine's [`Element`], whatever their type in the graph; scales of quantised tensors are f32.
#[derive(Debug, Clone)]
pub struct GpuTensor {
    dtype: DataType,
    shape: Vec<usize>,
    buffer: Arc<DeviceBuffer>,
    offset: usize,
}

impl GpuTensor {
    /// A tensor at the start of a buffer.
    ///
    /// # Errors
    /// If the buffer is too small.
    pub fn new(dtype: DataType, shape: Vec<usize>, buffer: DeviceBuffer) -> Result<Self, OpError> {
        let tensor = Self { dtype, shape, buffer: Arc::new(buffer), offset: 0 };
        tensor.check()
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// If their number differs.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, OpError> {
        let n: usize = shape.iter().product();
        if n != self.n_elements() {
            return Err(OpError::shape(format!("{:?} can't be reshaped to {shape:?}", self.shape)));
        }
        Ok(Self { shape, ..self.clone() })
    }

    /// A part of the same memory, from element `start`.
    ///
    /// # Errors
    /// If it reaches beyond the buffer.
    pub fn part(&self, start: usize, shape: Vec<usize>) -> Result<Self, OpError> {
        let offset = self.offset + start * size_of_type(self.dtype)?;
        Self { shape, offset, ..self.clone() }.check()
    }

    fn check(self) -> Result<Self, OpError> {
        let end = self.offset + self.n_elements() * size_of_type(self.dtype)?;
        if end > self.buffer.len() {
            let (shape, n) = (&self.shape, self.buffer.len());
            return Err(OpError::shape(format!("{shape:?} in a buffer of {n} bytes")));
        }
        Ok(self)
    }

    /// How elements are stored.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Sizes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size of the last axis; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows along the last axis.
    pub fn rows(&self) -> usize {
        let n = self.shape.len().saturating_sub(1);
        self.shape[..n].iter().product()
    }

    /// Bytes.
    pub fn n_bytes(&self) -> usize {
        self.n_elements() * self.dtype.bits() / 8
    }

    /// Whether its memory came from the pool.
    pub fn is_from(&self, pool: &MemoryPool) -> bool {
        self.buffer.is_from(pool)
    }

    /// Where it starts.
    pub fn ptr(&self) -> DevicePtr {
        self.buffer.ptr().offset(self.offset)
    }

    /// A copy in host memory, after all that was started; floats as f32.
    ///
    /// # Errors
    /// If a kernel before it failed.
    pub fn to_host(&self, gpu: &Gpu) -> Result<Tensor, OpError> {
        let (at, n, shape) = (self.ptr(), self.n_elements(), self.shape.as_slice());
        match self.dtype {
            DataType::F16 => {
                let data: Vec<f16> = gpu.download(at, n)?;
                Ok(Tensor::from_vec(shape, data.into_iter().map(f32::from).collect()))
            }
            DataType::BF16 => {
                let data: Vec<bf16> = gpu.download(at, n)?;
                Ok(Tensor::from_vec(shape, data.into_iter().map(f32::from).collect()))
            }
            dtype => {
                let bytes: Vec<u8> = gpu.download(at, self.n_bytes())?;
                Ok(Tensor::new(dtype, shape.to_vec(), bytes.into())?)
            }
        }
    }
}

fn size_of_type(dtype: DataType) -> Result<usize, OpError> {
    match dtype.bits() {
        bits if bits > 0 && bits.is_multiple_of(8) => Ok(bits / 8),
        _ => Err(OpError::unsupported(format!("a {dtype} tensor can't be on the device as it is"))),
    }
}

/// The type of tensors of an element.
pub fn dtype_of(element: Element) -> DataType {
    match element {
        Element::F32 => DataType::F32,
        Element::F16 => DataType::F16,
        Element::BF16 => DataType::BF16,
    }
}

/// The bytes of a host tensor as they are on the device: floats as `element`, the rest as is.
///
/// # Errors
/// Types that are not kept on the device.
pub fn device_bytes(tensor: &Tensor, element: Element) -> Result<(DataType, Vec<u8>), OpError> {
    let dtype = tensor.dtype();
    if !dtype.is_float() {
        size_of_type(dtype)?;
        return Ok((dtype, tensor.bytes().to_vec()));
    }
    let to = dtype_of(element);
    if dtype == to {
        return Ok((dtype, tensor.bytes().to_vec()));
    }
    let data = tensor.to_f32_vec()?;
    let bytes = match element {
        Element::F32 => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Element::F16 => data.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        Element::BF16 => data.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
    };
    Ok((to, bytes))
}

/// Copies a host tensor to the device, to stay there; floats become `element`.
///
/// # Errors
/// Types that are not kept on the device; no memory.
pub fn upload(gpu: &Gpu, tensor: &Tensor, element: Element) -> Result<GpuTensor, OpError> {
    let (dtype, bytes) = device_bytes(tensor, element)?;
    GpuTensor::new(dtype, tensor.shape().to_vec(), gpu.upload(&bytes)?)
}

/// Where a value is.
#[derive(Debug, Clone)]
pub enum Value {
    /// In host memory: what is computed from sizes, positions, token ids.
    Host(Tensor),
    /// On the device.
    Device(GpuTensor),
}

impl Value {
    /// Sizes.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Host(tensor) => tensor.shape(),
            Self::Device(tensor) => tensor.shape(),
        }
    }
}

/// Inputs of a run: each is where the kernel wants it (see [`CudaKernel::reads_on_host`]).
#[derive(Clone, Copy)]
pub struct CudaInputs<'a>(pub &'a [Option<Value>]);

impl<'a> CudaInputs<'a> {
    /// Number of inputs, absent ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tensor on the device at `index`, if present.
    pub fn optional(&self, index: usize) -> Option<&'a GpuTensor> {
        match self.0.get(index)?.as_ref()? {
            Value::Device(tensor) => Some(tensor),
            Value::Host(_) => None,
        }
    }

    /// The tensor on the device at `index`.
    ///
    /// # Errors
    /// If it is absent.
    pub fn device(&self, index: usize) -> Result<&'a GpuTensor, OpError> {
        self.optional(index).ok_or(OpError::MissingInput(index))
    }

    /// The tensor on the host at `index`, if present.
    pub fn optional_host(&self, index: usize) -> Option<&'a Tensor> {
        match self.0.get(index)?.as_ref()? {
            Value::Host(tensor) => Some(tensor),
            Value::Device(_) => None,
        }
    }

    /// The tensor on the host at `index`.
    ///
    /// # Errors
    /// If it is absent.
    pub fn host(&self, index: usize) -> Result<&'a Tensor, OpError> {
        self.optional_host(index).ok_or(OpError::MissingInput(index))
    }
}

/// What a kernel may use while it is made ready.
#[derive(Clone, Copy)]
pub struct CudaPrepare<'a> {
    /// The device.
    pub gpu: &'a Arc<Gpu>,
    /// How floats are stored.
    pub element: Element,
}

/// What a kernel may use while it runs.
pub struct CudaContext<'a> {
    /// The device.
    pub gpu: &'a Arc<Gpu>,
    /// How floats are stored.
    pub element: Element,
    /// What large products of f32 are computed in: [`ProductPrecision::BF16`] allows TF32 here, which
    /// has more digits and the same tensor cores.
    pub precision: ProductPrecision,
    /// KV caches of the session, by layer.
    pub caches: &'a mut Vec<Option<KvCache>>,
    /// On the device, INT32: positions in the caches before this run.
    pub past: DevicePtr,
    /// The same number, as it was when this run was started or recorded.
    pub n_past: usize,
    /// The run is being recorded, to be replayed with a longer past: grids must reach to the
    /// capacity of the caches.
    pub recording: bool,
    /// Positions that this run appends; written by the kernels that do.
    pub appended: &'a mut usize,
}

impl CudaContext<'_> {
    /// A float tensor with unspecified contents.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn floats(&self, shape: Vec<usize>) -> Result<GpuTensor, OpError> {
        self.tensor(dtype_of(self.element), shape)
    }

    /// A tensor with unspecified contents.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn tensor(&self, dtype: DataType, shape: Vec<usize>) -> Result<GpuTensor, OpError> {
        let n = shape.iter().try_fold(size_of_type(dtype)?, |n, d| n.checked_mul(*d));
        let n = n.ok_or_else(|| OpError::shape(format!("{shape:?} is too large")))?;
        GpuTensor::new(dtype, shape, self.gpu.alloc(n)?)
    }
}

/// A node made ready to run on the device: attributes read, kernels compiled, weights uploaded.
pub trait CudaKernel: Send + Sync {
    /// Starts the node on the device's stream; `None` where an optional input is absent, or where
    /// the kernel took a constant in. Returns one tensor for each output of the node. It must not
    /// wait for the device.
    ///
    /// # Errors
    /// Shapes or types that the operator does not take, no memory, a failed launch.
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError>;

    /// Whether the kernel keeps its own form of the constant at this input.
    fn owns_input(&self, _index: usize) -> bool {
        false
    }

    /// Whether the kernel reads this input in host memory: a shape, axes, bounds of a slice.
    fn reads_on_host(&self, _index: usize) -> bool {
        false
    }

    /// Bytes of weights that the kernel holds on the device.
    fn weight_bytes(&self) -> usize {
        0
    }
}
