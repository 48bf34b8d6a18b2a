//! The tensors of a session.

use std::sync::Arc;

use planish_cuda::{Element, Gpu};
use planish_ir::Tensor;
use planish_kernels::cuda_kernel::{Value, device_bytes};
use planish_kernels::{GpuTensor, OpError};

use super::plan::{Plan, Read, Slot};

/// A value in host memory, on the device, or both.
#[derive(Debug, Clone, Default)]
struct Place {
    host: Option<Tensor>,
    device: Option<GpuTensor>,
}

/// The tensors of a session, by slot.
pub(super) struct Slots {
    gpu: Arc<Gpu>,
    element: Element,
    places: Vec<Place>,
}

impl Slots {
    pub fn new(plan: &Plan, gpu: Arc<Gpu>) -> Self {
        let mut places = vec![Place::default(); plan.n_slots];
        for (slot, tensor) in &plan.host_constants {
            places[*slot as usize].host = Some(tensor.clone());
        }
        for (slot, tensor) in &plan.device_constants {
            places[*slot as usize].device = Some(tensor.clone());
        }
        Self { gpu, element: plan.element, places }
    }

    pub fn set(&mut self, slot: Slot, value: Value) {
        self.places[slot as usize] = match value {
            Value::Host(tensor) => Place { host: Some(tensor), device: None },
            Value::Device(tensor) => Place { host: None, device: Some(tensor) },
        };
    }

    pub fn clear(&mut self, slot: Slot) {
        self.places[slot as usize] = Place::default();
    }

    /// The value where it is.
    pub fn value(&self, slot: Slot) -> Option<Value> {
        let place = &self.places[slot as usize];
        let device = place.device.clone().map(Value::Device);
        device.or_else(|| place.host.clone().map(Value::Host))
    }

    /// The tensor in host memory, if it is there.
    pub fn on_host(&self, slot: Slot) -> Option<&Tensor> {
        self.places[slot as usize].host.as_ref()
    }

    /// The sizes of a value, if it was computed.
    pub fn shape(&self, slot: Slot) -> Option<Vec<usize>> {
        let place = &self.places[slot as usize];
        let device = place.device.as_ref().map(|tensor| tensor.shape().to_vec());
        device.or_else(|| place.host.as_ref().map(|tensor| tensor.shape().to_vec()))
    }

    /// The value as a step reads it; copied there first if it is elsewhere.
    pub fn read(&mut self, read: Read) -> Result<Option<Value>, OpError> {
        match read {
            Read::Host(slot) => Ok(self.host(slot)?.map(Value::Host)),
            Read::Device(slot) => Ok(self.device(slot)?.map(Value::Device)),
        }
    }

    /// The tensor in host memory; waits for the device if it is there.
    pub fn host(&mut self, slot: Slot) -> Result<Option<Tensor>, OpError> {
        let place = &mut self.places[slot as usize];
        if let (None, Some(tensor)) = (&place.host, &place.device) {
            place.host = Some(tensor.to_host(&self.gpu)?);
        }
        Ok(place.host.clone())
    }

    /// The tensor on the device.
    pub fn device(&mut self, slot: Slot) -> Result<Option<GpuTensor>, OpError> {
        let place = &mut self.places[slot as usize];
        if let (None, Some(tensor)) = (&place.device, &place.host) {
            let (dtype, bytes) = device_bytes(tensor, self.element)?;
            let buffer = self.gpu.alloc(bytes.len())?;
            self.gpu.write(buffer.ptr(), &bytes)?;
            place.device = Some(GpuTensor::new(dtype, tensor.shape().to_vec(), buffer)?);
        }
        Ok(place.device.clone())
    }

    /// Copies a tensor in host memory to where `to` is.
    pub fn copy_to(&self, slot: Slot, to: &GpuTensor) -> Result<(), OpError> {
        let Some(tensor) = self.on_host(slot) else { return Ok(()) };
        let (_, bytes) = device_bytes(tensor, self.element)?;
        Ok(self.gpu.write(to.ptr(), &bytes)?)
    }
}
