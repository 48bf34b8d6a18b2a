//! A mutable slice that the threads of a region write disjoint parts of.

use std::marker::PhantomData;
use std::ops::Range;

/// A `&mut [T]` handed to several threads, each of which takes its own part.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<'a, T> {
    ptr: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are taken by `part` and `ptr_at`, whose callers promise they do not overlap.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { ptr: slice.as_mut_ptr(), len: slice.len(), _borrow: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No two live parts overlap.
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part outside the slice");
        // SAFETY: the range lies inside the slice; the caller promises disjoint parts.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.len()) }
    }

    /// A pointer to element `index`, which may be one past the end.
    pub(crate) fn ptr_at(&self, index: usize) -> *mut T {
        assert!(index <= self.len, "index outside the slice");
        // SAFETY: the index lies inside the slice or one past it.
        unsafe { self.ptr.add(index) }
    }
}
