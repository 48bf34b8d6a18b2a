//! Numbers at equal steps.

use super::number::{ALL, Number, count, launch, typed};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static RANGE: Source =
    Source { name: "range.cu", text: include_str!("range.cu"), archs: Archs::All, variants: ALL };

/// First element and step of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Steps {
    /// Of floats.
    Floats(f64, f64),
    /// Of integers.
    Ints(i64, i64),
}

/// `y[i] = start + i · delta` of `n` elements.
///
/// # Errors
/// If there are too many elements.
pub fn range(
    gpu: &Gpu,
    number: Number,
    steps: Steps,
    y: DevicePtr,
    n: usize,
) -> Result<(), GpuError> {
    if n == 0 {
        return Ok(());
    }
    let (floats, ints) = match steps {
        Steps::Floats(start, delta) => ([start, delta], [start as i64, delta as i64]),
        Steps::Ints(start, delta) => ([start as f64, delta as f64], [start, delta]),
    };
    let args = Args::new().u64(floats[0].to_bits()).u64(floats[1].to_bits());
    let args = args.u64(ints[0] as u64).u64(ints[1] as u64).ptr(y).i32(count(n)?);
    launch(gpu, &typed(gpu, &RANGE, "range", number)?, n, &args)
}
