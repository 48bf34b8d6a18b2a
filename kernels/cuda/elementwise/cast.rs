//! Conversion between types.

use super::number::{ALL, Number, count, launch, typed};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static CAST: Source =
    Source { name: "cast.cu", text: include_str!("cast.cu"), archs: Archs::All, variants: ALL };

/// `y[i] = x[i]` in another type, of `n` dense elements.
///
/// # Errors
/// If there are too many elements.
pub fn cast(
    gpu: &Gpu,
    (x, from): (DevicePtr, Number),
    (y, to): (DevicePtr, Number),
    n: usize,
) -> Result<(), GpuError> {
    let is_aligned = |p: DevicePtr, number: Number| p.0.is_multiple_of(2 * number.bytes() as u64);
    let in_pairs = n.is_multiple_of(2) && is_aligned(x, from) && is_aligned(y, to);
    let (entry, n) = if in_pairs { ("cast_vector", n / 2) } else { ("cast_scalar", n) };
    if n == 0 {
        return Ok(());
    }
    let f = typed(gpu, &CAST, entry, from)?;
    launch(gpu, &f, n, &Args::new().i32(to as i32).ptr(x).ptr(y).i32(count(n)?))
}
