//! Tensors in host memory.

use std::sync::Arc;

use planish_cpu::ThreadPool;
use planish_ir::Tensor;
use planish_kernels::OpError;

use super::adamw::Moments;
use crate::engine::{Device, EngineError, Moved, Optimizer, Value};

/// Host memory.
pub(super) struct HostMemory {
    pub pool: Arc<ThreadPool>,
}

impl Device for HostMemory {
    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        Ok(Value::Host(tensor.clone()))
    }

    fn download(&self, value: &Value) -> Result<Tensor, EngineError> {
        host(value).cloned()
    }

    fn write(&self, value: &mut Value, tensor: &Tensor) -> Result<(), EngineError> {
        let (old, new) = (host(value)?, (tensor.dtype(), tensor.shape()));
        if (old.dtype(), old.shape()) != new {
            let message = format!("{new:?} written over {:?} {:?}", old.dtype(), old.shape());
            return Err(failed(OpError::shape(message)));
        }
        *value = Value::Host(tensor.clone());
        Ok(())
    }

    fn part(&self, of: &Value, start: usize, shape: &[usize]) -> Result<Value, EngineError> {
        let of = host(of)?;
        let bytes = |elements: usize| elements * of.dtype().bits() / 8;
        let n: usize = shape.iter().product();
        if start + n > of.n_elements() {
            let message = format!("{n} elements from {start} on of {:?}", of.shape());
            return Err(failed(OpError::shape(message)));
        }
        let data = of.bytes().slice(bytes(start)..bytes(start + n));
        let part = Tensor::new(of.dtype(), shape.to_vec(), data);
        Ok(Value::Host(part.map_err(|error| failed(error.into()))?))
    }

    fn join(&self, parts: &[Value], shape: &[usize]) -> Result<Value, EngineError> {
        let n: usize = shape.iter().product();
        let mut data = Vec::with_capacity(n);
        for part in parts {
            let part = host(part)?.as_slice::<f32>().map_err(|error| failed(error.into()))?;
            data.extend_from_slice(&part);
        }
        if data.len() != n {
            let message = format!("{} elements joined to {shape:?}", data.len());
            return Err(failed(OpError::shape(message)));
        }
        Ok(Value::Host(Tensor::from_vec(shape, data)))
    }

    fn adamw(&self, sizes: &[usize]) -> Result<Box<dyn Optimizer>, EngineError> {
        let moments = sizes.iter().map(|_| None).collect();
        Ok(Box::new(AdamW { pool: self.pool.clone(), moments }))
    }
}

struct AdamW {
    pool: Arc<ThreadPool>,
    moments: Vec<Option<Moments>>,
}

impl Optimizer for AdamW {
    fn step(&mut self, tensors: &mut [Moved<'_>], factor: f32) -> Result<(), EngineError> {
        for (Moved { value, gradient, rate }, moments) in tensors.iter_mut().zip(&mut self.moments)
        {
            let Some(gradient) = gradient else { continue };
            let gradient = host(gradient)?.as_slice::<f32>();
            let gradient = gradient.map_err(|error| failed(error.into()))?;
            let tensor = host(value)?;
            let mut values = tensor.to_f32_vec().map_err(|error| failed(error.into()))?;
            if gradient.len() != values.len() {
                let message = format!("a gradient of {} elements", gradient.len());
                return Err(failed(OpError::shape(message)));
            }
            let moments = moments.get_or_insert_with(|| Moments::new(values.len()));
            moments.step(&self.pool, *rate * factor, &mut values, &gradient);
            **value = Value::Host(Tensor::from_vec(tensor.shape(), values));
        }
        Ok(())
    }
}

/// The tensor of a value that must be in host memory.
pub(in crate::engine) fn host(value: &Value) -> Result<&Tensor, EngineError> {
    match value {
        Value::Host(tensor) => Ok(tensor),
        Value::Device(_) => Err(failed(OpError::unsupported("a tensor of another device"))),
    }
}

fn failed(error: OpError) -> EngineError {
    EngineError::Run { node: "of the optimiser".into(), error }
}
