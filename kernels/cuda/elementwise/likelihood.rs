//! How unlikely a distribution finds what came.

use super::number::{FLOATS, Number, count, float_only, launch_blocks, typed};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static LIKELIHOOD: Source = Source {
    name: "likelihood.cu",
    text: include_str!("likelihood.cu"),
    archs: Archs::All,
    variants: FLOATS,
};

/// Of each of `rows` rows of `n` logits ln Σ exp(row) − row[target], targets i64 and y f32, both
/// `[rows]`: NaN where a logit is NaN or +∞, where all are −∞, and where the target is outside the
/// row. Summed in f32, in an order that depends on the size alone.
///
/// # Errors
/// If there are too many elements.
pub fn negative_log_likelihood(
    gpu: &Gpu,
    number: Number,
    (logits, targets): (DevicePtr, DevicePtr),
    y: DevicePtr,
    (rows, n): (usize, usize),
) -> Result<(), GpuError> {
    float_only("the likelihood", number)?;
    if rows == 0 {
        return Ok(());
    }
    let is_packed = logits.0.is_multiple_of(16) && (n * number.bytes()).is_multiple_of(16);
    let entry = if is_packed { "likelihood_packed" } else { "likelihood" };
    let f = typed(gpu, &LIKELIHOOD, entry, number)?;
    let args = Args::new().ptr(logits).ptr(targets).ptr(y).i32(count(n)?);
    launch_blocks(gpu, &f, rows, 512, &args)
}
