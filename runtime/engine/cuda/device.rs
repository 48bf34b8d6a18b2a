//! Tensors on the device, f32.

use std::sync::Arc;

use planish_cuda::elementwise::{self, AdamWConstants};
use planish_cuda::{Element, Gpu};
use planish_ir::{DataType, Tensor};
use planish_kernels::cuda_kernel::upload;
use planish_kernels::{GpuTensor, OpError};

use super::session::of_engine;
use crate::engine::device::{BETA_1, BETA_2, EPSILON};
use crate::engine::{Device, EngineError, Moved, Optimizer, Value};

/// Steps that are started before the first is waited for.
const STEPS_AHEAD: usize = 24;

/// The memory of a device.
pub(super) struct DeviceMemory {
    pub gpu: Arc<Gpu>,
}

impl Device for DeviceMemory {
    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        Ok(Value::Device(upload(&self.gpu, tensor, Element::F32).map_err(of_engine)?))
    }

    fn download(&self, value: &Value) -> Result<Tensor, EngineError> {
        match value {
            Value::Host(tensor) => Ok(tensor.clone()),
            Value::Device(tensor) => tensor.to_host(&self.gpu).map_err(of_engine),
        }
    }

    fn write(&self, value: &mut Value, tensor: &Tensor) -> Result<(), EngineError> {
        let to = on_device(value)?;
        if (to.dtype(), to.shape()) != (tensor.dtype(), tensor.shape()) {
            let (old, new) = (to.shape(), tensor.shape());
            return Err(of_engine(OpError::shape(format!("{new:?} written over {old:?}"))));
        }
        self.gpu.write(to.ptr(), tensor.bytes().as_ref()).map_err(|error| of_engine(error.into()))
    }

    fn part(&self, of: &Value, start: usize, shape: &[usize]) -> Result<Value, EngineError> {
        let of = on_device(of)?;
        let n: usize = shape.iter().product();
        if start + n > of.n_elements() {
            let message = format!("{n} elements from {start} on of {:?}", of.shape());
            return Err(of_engine(OpError::shape(message)));
        }
        Ok(Value::Device(of.part(start, shape.to_vec()).map_err(of_engine)?))
    }

    fn join(&self, parts: &[Value], shape: &[usize]) -> Result<Value, EngineError> {
        let parts = parts.iter().map(on_device).collect::<Result<Vec<_>, _>>()?;
        let n: usize = parts.iter().map(|part| part.n_elements()).sum();
        let fits = n == shape.iter().product::<usize>();
        if !fits || parts.iter().any(|p| p.dtype() != DataType::F32) {
            return Err(of_engine(OpError::shape(format!("{n} elements joined to {shape:?}"))));
        }
        let joined = || {
            let buffer = self.gpu.alloc(4 * n)?;
            let mut at = buffer.ptr();
            for part in parts {
                self.gpu.copy(part.ptr(), at, part.n_bytes())?;
                at = at.offset(part.n_bytes());
            }
            GpuTensor::new(DataType::F32, shape.to_vec(), buffer)
        };
        Ok(Value::Device(joined().map_err(of_engine)?))
    }

    fn adamw(&self, sizes: &[usize]) -> Result<Box<dyn Optimizer>, EngineError> {
        let constants = AdamWConstants { beta_1: BETA_1, beta_2: BETA_2, epsilon: EPSILON };
        let inner = elementwise::AdamW::new(&self.gpu, sizes, constants);
        let inner = inner.map_err(|error| of_engine(error.into()))?;
        Ok(Box::new(AdamW { gpu: self.gpu.clone(), sizes: sizes.to_vec(), inner }))
    }

    fn steps_ahead(&self) -> usize {
        STEPS_AHEAD
    }
}

struct AdamW {
    gpu: Arc<Gpu>,
    sizes: Vec<usize>,
    inner: elementwise::AdamW,
}

impl Optimizer for AdamW {
    fn step(&mut self, tensors: &mut [Moved<'_>], factor: f32) -> Result<(), EngineError> {
        let mut moved = Vec::with_capacity(tensors.len());
        for (tensor, size) in tensors.iter().zip(&self.sizes) {
            let at = |value: &Value| {
                let value = on_device(value)?;
                if (value.dtype(), value.n_elements()) != (DataType::F32, *size) {
                    let message = format!("AdamW of {:?}, not {size} floats", value.shape());
                    return Err(of_engine(OpError::shape(message)));
                }
                Ok(value.ptr())
            };
            let gradient = tensor.gradient.map(at).transpose()?;
            let value = at(tensor.value)?;
            moved.push(elementwise::Moved { value, gradient, rate: tensor.rate });
        }
        self.inner.step(&self.gpu, &moved, factor).map_err(|error| of_engine(error.into()))
    }
}

/// The tensor of a value that must be on the device.
fn on_device(value: &Value) -> Result<&GpuTensor, EngineError> {
    match value {
        Value::Device(tensor) => Ok(tensor),
        Value::Host(_) => Err(of_engine(OpError::unsupported("a tensor in host memory"))),
    }
}
