//! Per-thread scratch memory that is kept from call to call.

use std::cell::RefCell;

/// One cache line, which gives the buffers their alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

impl Line {
    pub(crate) const ZERO: Line = Line([0; 64]);
}

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with a 64-byte aligned buffer of `len` numbers that holds arbitrary old values.
/// Calls may nest: each has its own buffer.
pub(crate) fn with<T: Plain, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let lines = (len * size_of::<T>()).div_ceil(64);
    let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < lines {
        buffer.resize(lines, Line::ZERO);
    }
    // SAFETY: the buffer is large enough, aligned to 64 bytes, initialised, and any bits make a
    // value of the plain number types.
    let slice = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<T>(), len) };
    let result = f(slice);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

/// Number types for which any bits are a value.
pub(crate) trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for i32 {}
impl Plain for u32 {}
impl Plain for i8 {}
impl Plain for u8 {}
