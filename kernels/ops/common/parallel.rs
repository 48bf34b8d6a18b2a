//! Loops over the elements of an output, on several threads when they pay.

use std::sync::{Mutex, PoisonError};

use crate::CpuContext;

/// Loops over fewer elements than this are run by the calling thread.
const MIN_ELEMENTS: usize = 32_768;

/// Calls `f` with consecutive parts of `out` and the index of each part's first element. Parts
/// start at multiples of `unit` elements.
pub(crate) fn for_each_part<T: Send>(
    context: &CpuContext,
    out: &mut [T],
    unit: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let work = out.len();
    for_each_part_of(context, work, out, unit, f);
}

/// As [`for_each_part`], for an output that takes a loop over `work` elements to compute.
pub(crate) fn for_each_part_of<T: Send>(
    context: &CpuContext,
    work: usize,
    out: &mut [T],
    unit: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let pool = context.pool;
    let unit = unit.max(1);
    if work < MIN_ELEMENTS || pool.n_threads() == 1 || out.len() <= unit {
        return f(0, out);
    }
    let size = out.len().div_ceil(unit).div_ceil(pool.n_threads()) * unit;
    let parts: Vec<Mutex<&mut [T]>> = out.chunks_mut(size).map(Mutex::new).collect();
    pool.for_each_dynamic(parts.len(), 1, |range| {
        for index in range {
            let mut part = parts[index].lock().unwrap_or_else(PoisonError::into_inner);
            f(index * size, &mut part);
        }
    });
}
