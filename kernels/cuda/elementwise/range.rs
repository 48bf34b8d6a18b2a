//! Numbers at equal steps.

use super::number::{ALL, Number, count, launch, typed};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static RANGE: Source =
    Source { name: "range.cu", text: include_str!("range.cu"), archs: Archs::All, variants: ALL };

/// `y[i] = start + i · delta` of `n` elements; `start` and `delta` are single elements.
///
/// # Errors
/// If there are too many elements.
pub fn range(
    gpu: &Gpu,
    number: Number,
    (start, delta): (DevicePtr, DevicePtr),
    y: DevicePtr,
    n: usize,
) -> Result<(), GpuError> {
    if n == 0 {
        return Ok(());
    }
    let f = typed(gpu, &RANGE, "range", number)?;
    launch(gpu, &f, n, &Args::new().ptr(start).ptr(delta).ptr(y).i32(count(n)?))
}
