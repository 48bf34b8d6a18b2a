//! The tensors of a session.

use std::sync::Arc;

use planish_cuda::{Element, Gpu};
use planish_ir::{DataType, Tensor};
use planish_kernels::cuda_kernel::{Value, device_bytes};
use planish_kernels::{GpuTensor, OpError};

use super::plan::{Plan, Read, Slot};
use super::record::Upload;

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
    /// While a run is recorded, what it copies from host memory: replays read it again.
    copied: Option<Vec<Vec<u8>>>,
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
        Self { gpu, element: plan.element, places, copied: None }
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
            if let Some(copied) = &mut self.copied {
                copied.push(bytes);
            }
        }
        Ok(place.device.clone())
    }

    /// The tensor on the device, if it is there.
    pub fn on_device(&self, slot: Slot) -> Option<&GpuTensor> {
        self.places[slot as usize].device.as_ref()
    }

    /// From now on what is copied from host memory is kept.
    pub fn begin_recording(&mut self) {
        self.copied = Some(Vec::new());
    }

    /// What was copied since; must live as long as the recording.
    pub fn end_recording(&mut self) -> Vec<Vec<u8>> {
        self.copied.take().unwrap_or_default()
    }

    /// Type and shape of a value.
    pub fn kind(&self, slot: Slot) -> Option<(DataType, Vec<usize>)> {
        let place = &self.places[slot as usize];
        let host = place.host.as_ref().map(|tensor| (tensor.dtype(), tensor.shape().to_vec()));
        host.or_else(|| place.device.as_ref().map(|t| (t.dtype(), t.shape().to_vec())))
    }

    /// Puts a copy into the slot of a value that is on the device alone; nobody else has it.
    pub fn make_own(&mut self, slot: Slot) -> Result<(), OpError> {
        let place = &mut self.places[slot as usize];
        if let (None, Some(tensor)) = (&place.host, &place.device) {
            let own = copied(&self.gpu, tensor)?;
            place.device = Some(own);
        }
        Ok(())
    }

    /// Copies what was given to where a recording reads it, unless it is there already.
    pub fn give(&self, upload: &mut Upload) -> Result<(), OpError> {
        let place = &self.places[upload.slot as usize];
        let to = upload.to.ptr();
        match (&place.host, &place.device) {
            (Some(tensor), _) => {
                let is_same = |written: &Tensor| {
                    let (a, b) = (written.bytes(), tensor.bytes());
                    (a.as_ptr(), a.len()) == (b.as_ptr(), b.len())
                };
                if !upload.written.as_ref().is_some_and(is_same) {
                    let (_, bytes) = device_bytes(tensor, self.element)?;
                    self.gpu.write(to, &bytes)?;
                    upload.written = Some(tensor.clone());
                }
            }
            (None, Some(tensor)) if tensor.ptr() != to => {
                self.gpu.copy(tensor.ptr(), to, tensor.n_bytes())?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// A copy of a tensor, in memory from the pool.
pub(super) fn copied(gpu: &Gpu, tensor: &GpuTensor) -> Result<GpuTensor, OpError> {
    let buffer = gpu.alloc(tensor.n_bytes())?;
    gpu.copy(tensor.ptr(), buffer.ptr(), tensor.n_bytes())?;
    GpuTensor::new(tensor.dtype(), tensor.shape().to_vec(), buffer)
}
