//! Buffers of tensors, reused from one step to the next.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use bytes::Bytes;
use planish_ir::{DataType, Tensor, TensorError};

use crate::OpError;
use crate::memory::{check, too_much};

/// Alignment of every buffer: a cache line, an AVX-512 register.
const ALIGNMENT: usize = 64;
/// Bytes that a pool keeps for reuse at most, unless it is told otherwise.
const MAX_KEPT: usize = 64 << 20;
/// Sizes beyond this are refused before any arithmetic on them.
const MAX_BYTES: usize = isize::MAX as usize / 4;

/// Hands out buffers and takes them back when the last tensor over one is dropped, so that a
/// decoding step allocates nothing once it has run twice.
#[derive(Clone, Default)]
pub struct BufferPool {
    free: Arc<Mutex<FreeList>>,
}

struct FreeList {
    by_size: HashMap<usize, Vec<RawBuffer>>,
    kept: usize,
    max_kept: usize,
}

impl Default for FreeList {
    fn default() -> Self {
        Self { by_size: HashMap::new(), kept: 0, max_kept: MAX_KEPT }
    }
}

impl BufferPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool that keeps up to `n_bytes` for reuse.
    pub fn keeping(n_bytes: usize) -> Self {
        let free = FreeList { max_kept: n_bytes, ..FreeList::default() };
        Self { free: Arc::new(Mutex::new(free)) }
    }

    /// A buffer of at least `n_bytes` whose contents are unspecified (but initialised) bytes.
    ///
    /// # Errors
    /// [`OpError::Memory`] if there is no memory for it.
    pub fn take(&self, n_bytes: usize) -> Result<Buffer, OpError> {
        self.take_for::<u8>(n_bytes)
    }

    /// A buffer for `n` elements, as a mutable slice through [`Buffer::as_mut`].
    ///
    /// # Errors
    /// As [`BufferPool::take`].
    pub fn take_for<T: Pod>(&self, n: usize) -> Result<Buffer, OpError> {
        let n_bytes = n.checked_mul(size_of::<T>()).filter(|n| *n <= MAX_BYTES);
        let none = || too_much(n, size_of::<T>());
        let n_bytes = n_bytes.ok_or_else(none)?;
        let size = size_class(n_bytes);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let reused = free.by_size.get_mut(&size).and_then(Vec::pop);
        if reused.is_some() {
            free.kept -= size;
        }
        drop(free);
        let raw = reused.or_else(|| RawBuffer::new(size)).ok_or_else(none)?;
        Ok(Buffer { raw: Some(raw), len: n_bytes, home: self.free.clone() })
    }
}

/// Sizes are rounded up so that slightly growing tensors (a mask, a position list) find their
/// buffer again: to a power of two up to 4 KiB, then to an eighth of the next lower power of two.
fn size_class(n_bytes: usize) -> usize {
    let n = n_bytes.max(ALIGNMENT);
    if n <= 4096 {
        return n.next_power_of_two();
    }
    let step = (n.next_power_of_two() / 16).max(ALIGNMENT);
    n.div_ceil(step) * step
}

impl std::fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("BufferPool").field("kept", &free.kept).finish_non_exhaustive()
    }
}

/// A buffer on loan from a pool.
pub struct Buffer {
    raw: Option<RawBuffer>,
    len: usize,
    home: Arc<Mutex<FreeList>>,
}

impl Buffer {
    /// The elements, to be written.
    #[allow(clippy::should_implement_trait)]
    pub fn as_mut<T: Pod>(&mut self) -> &mut [T] {
        let len = self.len;
        let raw = self.raw.as_mut().expect("present until dropped");
        bytemuck::cast_slice_mut(&mut raw.bytes_mut()[..len])
    }

    /// Makes a tensor of it.
    ///
    /// # Errors
    /// If the size does not fit.
    pub fn into_tensor(self, dtype: DataType, shape: Vec<usize>) -> Result<Tensor, TensorError> {
        Tensor::new(dtype, shape, Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.raw.as_ref().expect("present until dropped").bytes()[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(raw) = self.raw.take() else { return };
        let mut free = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if free.kept + raw.size <= free.max_kept {
            free.kept += raw.size;
            free.by_size.entry(raw.size).or_default().push(raw);
        }
    }
}

/// An aligned allocation.
struct RawBuffer {
    pointer: *mut u8,
    size: usize,
}

// SAFETY: the allocation is owned by this value alone.
unsafe impl Send for RawBuffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for RawBuffer {}

impl RawBuffer {
    /// `None` if there is no memory for it.
    fn new(size: usize) -> Option<Self> {
        check(size, 1).ok()?;
        let layout = Self::layout(size);
        // SAFETY: the size is not zero (see `size_class`).
        let pointer = unsafe { alloc(layout) };
        if pointer.is_null() {
            return None;
        }
        // SAFETY: `size` bytes were just allocated; they must be initialised to be read.
        unsafe { pointer.write_bytes(0, size) };
        Some(Self { pointer, size })
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, ALIGNMENT).expect("sizes of tensors fit the address space")
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `size` initialised bytes, owned by self.
        unsafe { std::slice::from_raw_parts(self.pointer, self.size) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.size) }
    }
}

impl Drop for RawBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layout.
        unsafe { dealloc(self.pointer, Self::layout(self.size)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_tensor_gives_its_buffer_back() {
        let pool = BufferPool::new();
        let mut buffer = pool.take_for::<f32>(10).unwrap();
        buffer.as_mut::<f32>().fill(2.0);
        let address = buffer.as_ref().as_ptr();
        let tensor = buffer.into_tensor(DataType::F32, vec![2, 5]).unwrap();
        assert_eq!(tensor.as_slice::<f32>().unwrap()[9], 2.0);
        let copy = tensor.clone();
        drop(tensor);
        assert_ne!(pool.take(40).unwrap().as_ref().as_ptr(), address, "a clone still reads it");
        drop(copy);
        assert_eq!(pool.take(40).unwrap().as_ref().as_ptr(), address);
    }

    #[test]
    fn a_buffer_beyond_all_memory_is_an_error() {
        let pool = BufferPool::new();
        for n in [1 << 46, 1 << 60, usize::MAX / 4, usize::MAX] {
            let message = pool.take_for::<f32>(n).err().unwrap().to_string();
            assert!(message.contains("more memory than there is"), "{n}: {message}");
            assert!(pool.take(n).is_err());
        }
        assert_eq!(pool.take(40).unwrap().as_ref().len(), 40);
    }

    #[test]
    fn size_classes_waste_little() {
        for n in [1usize, 64, 65, 4097, 100_000, 113_246_208] {
            let size = size_class(n);
            assert!(size >= n && (n < 4096 || size <= n + n / 8 + ALIGNMENT), "{n} → {size}");
        }
    }
}
