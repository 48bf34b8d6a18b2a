//! Attention over a KV cache of 16- or 32-bit elements, 8-bit or 4-bit codes.
//!
//! A step of a layer is [`KvCache::prepare`] (rotary embedding of queries and keys, an optional
//! matrix on their heads, the write to the cache) and [`KvCache::attend`]; [`KvCache::step`] is
//! both, in one launch where few positions are new. The number of positions already in the cache is
//! read from device memory by all kernels, so a captured graph serves a growing context.

mod attend;
mod bench;
mod cache;
mod dense;
mod dense_bench;
#[cfg(test)]
mod dense_tests;
mod prepare;
mod prepare_plan;
#[cfg(test)]
mod prepare_tests;
mod sources;
mod step;
#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod tests;

pub use attend::{Attend, PadMask};
pub use bench::bench;
pub use cache::{CacheFormat, Clip, KvCache, KvShape};
pub use dense::{DenseAttention, DenseGradients};
pub use dense_bench::bench as bench_learning;
pub use prepare::{Prepare, Queries, Rotation};

use crate::{Args, DevicePtr, GpuError, Source};

/// Kernels of this area.
pub static SOURCES: &[&Source] = &[
    &sources::PREPARE,
    &sources::PREPARE_MANY,
    &sources::PREPARE_MANY_HOPPER,
    &sources::DECODE,
    &sources::DECODE_IN_CLUSTERS,
    &sources::STEP,
    &sources::STEP_IN_CLUSTERS,
    &sources::PREFILL,
    &sources::PREFILL_HOPPER,
    &sources::PREFILL_F32,
    &sources::NAIVE,
    &sources::DENSE,
    &sources::DENSE_GRADS,
    &sources::DENSE_HOPPER,
    &sources::DENSE_GRADS_HOPPER,
];

/// The rows of a tensor `[batch, new, heads · head_dim]` that may be part of a wider one.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// First element.
    pub at: DevicePtr,
    /// Elements from one position to the next, a multiple of 8.
    pub stride: usize,
}

impl Rows {
    /// Loads are 16 bytes wide.
    fn check(self, what: &str, width: usize) -> Result<(), GpuError> {
        if self.stride < width || !self.stride.is_multiple_of(8) || !self.at.0.is_multiple_of(16) {
            return Err(GpuError::unsupported(format!(
                "{what} must start at a multiple of 16 bytes and have a stride that is a multiple \
                 of 8 and at least {width}, not {}",
                self.stride
            )));
        }
        Ok(())
    }

    /// As two arguments of a kernel.
    fn argument(self, args: Args) -> Result<Args, GpuError> {
        Ok(args.ptr(self.at).i32(int(self.stride)?))
    }
}

/// A size as a kernel's integer.
fn int(n: usize) -> Result<i32, GpuError> {
    i32::try_from(n).map_err(|_| GpuError::unsupported(format!("{n} is too large for attention")))
}

/// A size as one of a launch.
fn launch_size(n: usize) -> Result<u32, GpuError> {
    int(n).map(i32::unsigned_abs)
}
