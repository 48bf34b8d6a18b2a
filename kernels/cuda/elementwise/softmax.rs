//! Softmax.

use super::number::{FLOATS, Number, count, float_only, launch, launch_blocks, typed};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static SOFTMAX: Source = Source {
    name: "softmax.cu",
    text: include_str!("softmax.cu"),
    archs: Archs::All,
    variants: FLOATS,
};

/// Softmax, or its logarithm, along the middle axis of `[outer, n, step]`.
///
/// # Errors
/// If there are too many elements.
pub fn softmax(
    gpu: &Gpu,
    number: Number,
    x: DevicePtr,
    y: DevicePtr,
    [outer, n, step]: [usize; 3],
    is_log: bool,
) -> Result<(), GpuError> {
    float_only("softmax", number)?;
    let lines = outer * step;
    if lines * n == 0 {
        return Ok(());
    }
    let args = Args::new().ptr(x).ptr(y).i32(count(lines)?).i32(count(n)?);
    let args = args.i32(count(step)?).i32(i32::from(is_log));
    let per = 16 / number.bytes();
    let is_aligned = [x, y].iter().all(|p| p.0.is_multiple_of(16)) && n.is_multiple_of(per);
    let in_registers = match n / per {
        _ if step != 1 || !is_aligned => None,
        0..=32 => Some(("softmax_row_warp", 8, 256)),
        33..=128 if lines >= 1024 => Some(("softmax_row_warp", 8, 256)),
        _ if n / per <= 1024 => Some(("softmax_row_block", 1, 256)),
        _ if n / per <= 4096 => Some(("softmax_row_wide", 1, 1024)),
        _ => None,
    };
    if let Some((entry, per_block, threads)) = in_registers {
        let f = typed(gpu, &SOFTMAX, entry, number)?;
        return launch_blocks(gpu, &f, lines.div_ceil(per_block), threads, &args);
    }
    if step >= 32 {
        let f = typed(gpu, &SOFTMAX, "softmax_thread", number)?;
        return launch(gpu, &f, lines, &args);
    }
    if n <= 512 {
        let f = typed(gpu, &SOFTMAX, "softmax_warp", number)?;
        return launch_blocks(gpu, &f, lines.div_ceil(8), 256, &args);
    }
    let f = typed(gpu, &SOFTMAX, "softmax_block", number)?;
    launch_blocks(gpu, &f, lines, 512, &args)
}
