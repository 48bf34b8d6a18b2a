//! Running sums, and where the largest elements are.

use super::number::{ALL, Number, count, launch_blocks, typed};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Launch, Source};

pub(super) static SCAN: Source =
    Source { name: "scan.cu", text: include_str!("scan.cu"), archs: Archs::All, variants: ALL };

/// From which size on a line is worth several blocks, and up to how many lines.
const LONG: usize = 8192;
const MANY: usize = 256;
/// Elements of a line for one of several blocks.
const PART: usize = 1024;
/// Bytes of a place in scan.cu, at most.
const PLACE: usize = 16;

/// Running sums along the middle axis of `[outer, size, inner]`, each without its own element where
/// `is_exclusive`, from the end where `is_reverse`.
///
/// # Errors
/// If there are too many elements.
pub fn running_sums(
    gpu: &Gpu,
    number: Number,
    (x, y): (DevicePtr, DevicePtr),
    [outer, size, inner]: [usize; 3],
    (is_exclusive, is_reverse): (bool, bool),
) -> Result<(), GpuError> {
    let lines = outer * inner;
    if lines * size == 0 {
        return Ok(());
    }
    let args = Args::new().ptr(x).ptr(y).i32(count(lines)?).i32(count(size)?).i32(count(inner)?);
    let args = args.i32(i32::from(is_exclusive)).i32(i32::from(is_reverse));
    let f = typed(gpu, &SCAN, "running_sums", number)?;
    launch_blocks(gpu, &f, lines.div_ceil(8), 256, &args)
}

/// Fails for an axis without elements.
fn not_empty(size: usize) -> Result<(), GpuError> {
    if size == 0 {
        return Err(GpuError::unsupported("an empty axis has no largest element"));
    }
    Ok(())
}

/// Where the largest (or smallest) element along the middle axis of `[outer, size, inner]` is, as i64
/// `[outer, inner]`; of equal ones the first, or the last where `takes_last`. NaN is above all.
///
/// # Errors
/// If the axis is empty, or there are too many elements.
pub fn arg(
    gpu: &Gpu,
    number: Number,
    (x, y): (DevicePtr, DevicePtr),
    [outer, size, inner]: [usize; 3],
    (largest, takes_last): (bool, bool),
) -> Result<(), GpuError> {
    not_empty(size)?;
    if outer * inner == 0 {
        return Ok(());
    }
    let lines = outer * inner;
    let how = |args: Args| args.i32(i32::from(largest)).i32(i32::from(takes_last));
    if size < LONG || lines >= MANY {
        let args = Args::new().ptr(x).ptr(y).i32(count(size)?).i32(count(inner)?);
        let f = typed(gpu, &SCAN, "arg", number)?;
        return launch_blocks(gpu, &f, lines, 256, &how(args));
    }
    let n_parts = (size / PART).clamp(1, 256);
    let parts = gpu.alloc(lines * n_parts * PLACE)?;
    let args = Args::new().ptr(x).ptr(parts.ptr()).i32(count(size)?).i32(count(inner)?);
    let grid = [n_parts as u32, lines as u32, 1];
    let launch = Launch { grid, block: [256, 1, 1], shared: 0, overlap: true };
    gpu.launch(&typed(gpu, &SCAN, "arg_parts", number)?, launch, &how(args))?;
    let args = Args::new().ptr(parts.ptr()).ptr(y).i32(count(n_parts)?);
    let f = typed(gpu, &SCAN, "arg_last", number)?;
    launch_blocks(gpu, &f, lines, 256, &how(args))
}

/// Greedy sampling: where the largest of each of `rows` rows of `n` elements is, as i64 `[rows]`.
///
/// # Errors
/// As [`arg`].
pub fn argmax(
    gpu: &Gpu,
    number: Number,
    x: DevicePtr,
    y: DevicePtr,
    (rows, n): (usize, usize),
) -> Result<(), GpuError> {
    arg(gpu, number, (x, y), [rows, n, 1], (true, false))
}

/// The k largest (or smallest) elements in order, and where they are (i64), both `[outer, k, inner]`.
///
/// # Errors
/// If the axis has fewer, or there are too many elements.
pub fn top_k(
    gpu: &Gpu,
    number: Number,
    x: DevicePtr,
    (values, places): (DevicePtr, DevicePtr),
    [outer, size, inner]: [usize; 3],
    (k, largest): (usize, bool),
) -> Result<(), GpuError> {
    if k > size {
        return Err(GpuError::unsupported(format!("the {k} largest of {size}")));
    }
    if outer * inner * k == 0 {
        return Ok(());
    }
    let args = Args::new().ptr(x).ptr(values).ptr(places).i32(count(size)?).i32(count(inner)?);
    let args = args.i32(count(k)?).i32(i32::from(largest));
    let f = typed(gpu, &SCAN, "top_k", number)?;
    launch_blocks(gpu, &f, outer * inner, 256, &args)
}
