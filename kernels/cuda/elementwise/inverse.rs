//! Inverses of small matrices.

use super::number::{FLOATS, Number, count, float_only, typed};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Launch, Source};

pub(super) static INVERSE: Source = Source {
    name: "inverse.cu",
    text: include_str!("inverse.cu"),
    archs: Archs::All,
    variants: FLOATS,
};

/// Rows of matrices that `invert_small` takes.
const SMALL: usize = 128;
/// Shared memory that a kernel has besides what it is given.
const STATIC: usize = 8 << 10;

/// Inverses of dense matrices `[matrices, n, n]`, computed in f64; NaN of a singular one.
///
/// # Errors
/// If there are too many elements, or no memory.
pub fn inverse(
    gpu: &Gpu,
    number: Number,
    (x, y): (DevicePtr, DevicePtr),
    (matrices, n): (usize, usize),
) -> Result<(), GpuError> {
    float_only("an inverse", number)?;
    if matrices * n == 0 {
        return Ok(());
    }
    count(n * n)?;
    if let Some(entry) = held(n) {
        let launch = Launch::linear(count(matrices)? as usize, 256).overlapping();
        let args = Args::new().ptr(x).ptr(y).i32(count(n)?);
        return gpu.launch(&typed(gpu, &INVERSE, entry, number)?, launch, &args);
    }
    let limit = gpu.properties().shared_memory_per_block as usize;
    let shared = 8 * n * (n | 1) + 24 * n + 8 * n.div_ceil(2);
    if n <= SMALL && shared <= limit {
        let f = typed(gpu, &INVERSE, "invert_small", number)?;
        let launch = Launch::linear(count(matrices)? as usize, 256).with_shared(shared);
        let args = Args::new().ptr(x).ptr(y).i32(count(n)?);
        return gpu.launch(&f, launch.overlapping(), &args);
    }
    let (small, matrix) = (16 * n + 8 * n.div_ceil(2), 8 * n * n);
    let fits = small + matrix + STATIC <= limit;
    let scratch = if fits { None } else { Some(gpu.alloc(matrices * matrix)?) };
    let shared = if fits { small + matrix } else { small };
    let f = typed(gpu, &INVERSE, "invert", number)?;
    let launch = Launch::linear(count(matrices)? as usize, 512).with_shared(shared).overlapping();
    let scratch_at = scratch.as_ref().map(|buffer| buffer.ptr());
    gpu.launch(&f, launch, &Args::new().ptr(x).ptr(y).optional(scratch_at).i32(count(n)?))
}

/// The kernel that keeps matrices of `n` rows in registers, if there is one.
fn held(n: usize) -> Option<&'static str> {
    Some(match n {
        0..=16 => "invert_16",
        17..=32 => "invert_32",
        33..=48 => "invert_48",
        49..=64 => "invert_64",
        _ => return None,
    })
}
