//! Device memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use crate::error::Doing;
use crate::{Gpu, GpuError};

/// An address in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// No address.
    pub const NULL: Self = Self(0);

    /// The address this many bytes further.
    #[must_use]
    pub fn offset(self, n_bytes: usize) -> Self {
        Self(self.0 + n_bytes as u64)
    }
}

/// Allocations by size, in the order in which they became free.
type Free = HashMap<usize, VecDeque<Allocation>>;

/// Free memory, by size. All work is on one stream, so what is dropped may be handed out again at
/// once: the next user runs after the last one.
#[derive(Clone, Default)]
pub struct MemoryPool {
    free: Arc<Mutex<Free>>,
    /// Where it takes what it has not.
    parent: Option<Box<MemoryPool>>,
}

impl MemoryPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool that takes from this one what it has not.
    pub fn child(&self) -> Self {
        Self { free: Arc::default(), parent: Some(Box::new(self.clone())) }
    }

    /// Gives what is free to the pool that it was taken from; nothing may use it any more.
    pub fn give_back(&self) {
        let Some(parent) = &self.parent else { return };
        let all: Vec<Allocation> = self.lock().drain().flat_map(|(_, free)| free).collect();
        all.into_iter().for_each(|allocation| parent.give(allocation));
    }

    fn take(&self, size: usize) -> Option<Allocation> {
        let own = self.lock().get_mut(&size).and_then(VecDeque::pop_back);
        own.or_else(|| self.parent.as_ref().and_then(|parent| parent.take(size)))
    }

    /// What has been free for longest, if there is enough that has not: work that runs side by side
    /// should not wait for each other's memory.
    fn take_rested(&self, size: usize) -> Option<Allocation> {
        let of_own = |free: &mut VecDeque<Allocation>| {
            let has_rested = free.len() > n_resting(size);
            if has_rested { free.pop_front() } else { None }
        };
        let own = self.lock().get_mut(&size).and_then(of_own);
        own.or_else(|| self.parent.as_ref().and_then(|parent| parent.take_rested(size)))
    }

    fn give(&self, allocation: Allocation) {
        self.lock().entry(allocation.size).or_default().push_back(allocation);
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of its own.
struct Allocation {
    pointer: DevicePtr,
    size: usize,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated by the driver, and freed here alone; freeing waits for kernels that
        // use it. Without the context there is nothing left to free.
        let _ = unsafe { result::free_sync(self.pointer.0 as sys::CUdeviceptr) };
    }
}

/// Device memory that goes back to its pool when dropped.
pub struct DeviceBuffer {
    allocation: Option<Allocation>,
    len: usize,
    home: Option<MemoryPool>,
}

impl DeviceBuffer {
    /// Where it starts; 256-byte aligned.
    pub fn ptr(&self) -> DevicePtr {
        self.allocation.as_ref().map_or(DevicePtr::NULL, |a| a.pointer)
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it goes back to the pool.
    pub fn is_from(&self, pool: &MemoryPool) -> bool {
        self.home.as_ref().is_some_and(|home| Arc::ptr_eq(&home.free, &pool.free))
    }

    /// It has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl std::fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceBuffer({:#x}, {} bytes)", self.ptr().0, self.len)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if let (Some(allocation), Some(home)) = (self.allocation.take(), &self.home) {
            home.give(allocation);
        }
    }
}

/// How many allocations of a size rest, while work is recorded that runs side by side: many small
/// ones, few large ones.
fn n_resting(size: usize) -> usize {
    const SMALL: usize = 64 << 10;
    const BYTES: usize = 256 << 20;
    if size <= SMALL { 512 } else { (BYTES / size).clamp(1, 8) }
}

/// Sizes are rounded up, so that slightly growing tensors find their memory again: to a power of
/// two up to 64 KiB, then to a sixteenth of it.
fn size_class(n_bytes: usize) -> usize {
    let n = n_bytes.max(256);
    if n <= 64 << 10 {
        return n.next_power_of_two();
    }
    let step = n.next_power_of_two() / 16;
    n.div_ceil(step) * step
}

impl Gpu {
    /// Memory with unspecified contents, from the pool.
    ///
    /// # Errors
    /// [`GpuError::Memory`] with what is needed and what is free.
    pub fn alloc(&self, n_bytes: usize) -> Result<DeviceBuffer, GpuError> {
        let pool = self.pool();
        let size = size_class(n_bytes);
        let is_weaving = self.weaver.is_weaving();
        let free = if is_weaving { pool.take_rested(size) } else { pool.take(size) };
        let allocation = match free {
            Some(allocation) => allocation,
            None => self.allocate(size, &pool).or_else(|error| pool.take(size).ok_or(error))?,
        };
        self.piece_writes(allocation.pointer, size)?;
        Ok(DeviceBuffer { allocation: Some(allocation), len: n_bytes, home: Some(pool) })
    }

    /// Memory that is given back to the driver when dropped, for what stays: weights, caches; from the
    /// pool after [`Gpu::keep_memory`].
    ///
    /// # Errors
    /// As [`Gpu::alloc`].
    pub fn alloc_exact(&self, n_bytes: usize) -> Result<DeviceBuffer, GpuError> {
        if self.keeps_memory() {
            return self.alloc(n_bytes);
        }
        let allocation = self.allocate(n_bytes.max(1), &self.pool())?;
        Ok(DeviceBuffer { allocation: Some(allocation), len: n_bytes, home: None })
    }

    fn allocate(&self, size: usize, pool: &MemoryPool) -> Result<Allocation, GpuError> {
        let _turn = self.bind()?;
        // SAFETY: the context is current.
        let allocate = || unsafe { result::malloc_sync(size) };
        let pointer = allocate().or_else(|error| {
            // What is recorded goes on using memory that is free now.
            if self.weaver.is_weaving() {
                return Err(error);
            }
            pool.clear();
            allocate()
        });
        match pointer {
            Ok(pointer) => Ok(Allocation { pointer: DevicePtr(pointer), size }),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = self.memory().map_or(0, |(free, _)| free);
                Err(GpuError::Memory { needed: size, free })
            }
            Err(error) => Err(error).doing("allocate memory"),
        }
    }

    /// A copy of host data that stays on the device.
    ///
    /// # Errors
    /// As [`Gpu::alloc`].
    pub fn upload<T: Pod>(&self, data: &[T]) -> Result<DeviceBuffer, GpuError> {
        let buffer = self.alloc_exact(size_of_val(data))?;
        self.write(buffer.ptr(), data)?;
        Ok(buffer)
    }

    /// Copies host data to the device, in stream order; the data is read before this returns.
    ///
    /// # Errors
    /// If the copy fails.
    pub fn write<T: Pod>(&self, to: DevicePtr, data: &[T]) -> Result<(), GpuError> {
        if data.is_empty() {
            return Ok(());
        }
        let _turn = self.bind()?;
        let bytes: &[u8] = bytemuck::cast_slice(data);
        // SAFETY: callers keep to the size of their buffer. From pageable memory the driver has
        // read everything when the call returns.
        unsafe { result::memcpy_htod_async(to.0 as sys::CUdeviceptr, bytes, self.stream()) }
            .doing("copy to the device")
    }

    /// Copies from the device, after all that was started.
    ///
    /// # Errors
    /// If the copy, or a kernel before it, fails.
    pub fn download<T: Pod>(&self, from: DevicePtr, n: usize) -> Result<Vec<T>, GpuError> {
        let mut data = vec![T::zeroed(); n];
        self.read(from, &mut data)?;
        Ok(data)
    }

    /// Copies from the device into `data`, after all that was started.
    ///
    /// # Errors
    /// As [`Gpu::download`].
    pub fn read<T: Pod>(&self, from: DevicePtr, data: &mut [T]) -> Result<(), GpuError> {
        if data.is_empty() {
            return Ok(());
        }
        let _turn = self.bind()?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(data);
        // SAFETY: callers keep to the size of their buffer; the stream is waited for below.
        unsafe { result::memcpy_dtoh_async(bytes, from.0 as sys::CUdeviceptr, self.stream()) }
            .doing("copy from the device")?;
        self.synchronize()
    }

    /// Fills memory with zeros, in stream order.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn zero(&self, at: DevicePtr, n_bytes: usize) -> Result<(), GpuError> {
        if n_bytes == 0 {
            return Ok(());
        }
        let _turn = self.bind()?;
        // SAFETY: callers keep to the size of their buffer.
        unsafe { result::memset_d8_async(at.0 as sys::CUdeviceptr, 0, n_bytes, self.stream()) }
            .doing("clear memory")
    }

    /// Copies within the device, in stream order.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn copy(&self, from: DevicePtr, to: DevicePtr, n_bytes: usize) -> Result<(), GpuError> {
        if n_bytes == 0 {
            return Ok(());
        }
        let _turn = self.bind()?;
        // SAFETY: callers keep to the sizes of their buffers.
        unsafe {
            result::memcpy_dtod_async(
                to.0 as sys::CUdeviceptr,
                from.0 as sys::CUdeviceptr,
                n_bytes,
                self.stream(),
            )
        }
        .doing("copy on the device")
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn size_classes_waste_little() {
        for n in [0usize, 256, 257, 65_536, 65_537, 33_554_433, 1 << 30] {
            let size = size_class(n);
            assert!(size >= n && (n <= 65_536 || size <= n + n / 8), "{n} → {size}");
        }
    }
}
