//! Arguments of a kernel.

use std::ffi::c_void;

use crate::DevicePtr;

/// Arguments of a kernel, in the order of its parameters.
#[derive(Debug, Default, Clone)]
pub struct Args {
    /// 64-byte units, so that a tensor map is aligned as it must be.
    storage: Vec<Unit>,
    n_parts: usize,
    starts: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Unit([u8; 64]);

impl Args {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A pointer to device memory.
    #[must_use]
    pub fn ptr(self, pointer: DevicePtr) -> Self {
        self.u64(pointer.0)
    }

    /// A pointer that may be null.
    #[must_use]
    pub fn optional(self, pointer: Option<DevicePtr>) -> Self {
        self.ptr(pointer.unwrap_or(DevicePtr::NULL))
    }

    /// A 32-bit integer.
    #[must_use]
    pub fn i32(self, value: i32) -> Self {
        self.part(&value.to_ne_bytes())
    }

    /// A size, as a 32-bit integer of the kernel; sizes that do not fit become the largest one.
    #[must_use]
    pub fn size(self, value: usize) -> Self {
        self.i32(i32::try_from(value).unwrap_or(i32::MAX))
    }

    /// A 64-bit integer.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.part(&value.to_ne_bytes())
    }

    /// A float.
    #[must_use]
    pub fn f32(self, value: f32) -> Self {
        self.part(&value.to_ne_bytes())
    }

    /// A structure by value, aligned to at most 64 bytes.
    #[must_use]
    pub fn bytes(self, value: &[u8]) -> Self {
        self.part(value)
    }

    fn part(mut self, value: &[u8]) -> Self {
        self.starts.push(self.storage.len());
        for chunk in value.chunks(64) {
            let mut unit = Unit([0; 64]);
            unit.0[..chunk.len()].copy_from_slice(chunk);
            self.storage.push(unit);
        }
        self.n_parts += 1;
        self
    }

    /// Pointers to the arguments; valid while `self` is not changed.
    pub(crate) fn pointers(&self) -> Vec<*mut c_void> {
        let at = |start: &usize| self.storage[*start..].as_ptr().cast_mut().cast::<c_void>();
        self.starts.iter().map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_lie_where_their_pointers_say() {
        let args = Args::new().ptr(DevicePtr(7)).i32(-3).bytes(&[9; 130]).f32(1.5);
        let pointers = args.pointers();
        assert_eq!(pointers.len(), 4);
        // SAFETY: each pointer is to an argument of that type.
        unsafe {
            assert_eq!(*pointers[0].cast::<u64>(), 7);
            assert_eq!(*pointers[1].cast::<i32>(), -3);
            assert_eq!(std::slice::from_raw_parts(pointers[2].cast::<u8>(), 130), [9; 130]);
            assert_eq!(*pointers[3].cast::<f32>(), 1.5);
        }
        assert!(pointers.iter().all(|p| (*p as usize).is_multiple_of(64)));
    }
}
