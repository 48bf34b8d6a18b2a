//! Copies between strided places.

use super::number::{MAX_GRID, WIDTHS, count, launch, of_width};
use super::walk::{Fields, Walk, array};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Launch, Source};

pub(super) static COPY: Source =
    Source { name: "copy.cu", text: include_str!("copy.cu"), archs: Archs::All, variants: WIDTHS };

/// From how many elements on a transposition goes through tiles.
const WORTH_A_TILE: usize = 8;

/// Copies elements of `width` bytes: `axes` holds sizes and the steps, in elements, of the source
/// and of the target, outermost first. With a step of 0 in the source this expands, with
/// exchanged steps it transposes, and so on.
///
/// # Errors
/// If there are more axes or elements than kernels take.
pub fn copy(
    gpu: &Gpu,
    width: usize,
    from: DevicePtr,
    to: DevicePtr,
    axes: &[(usize, [i64; 2])],
) -> Result<(), GpuError> {
    let walk = Walk::new(axes)?;
    let n = walk.n();
    if n == 0 {
        return Ok(());
    }
    if let Some(matrices) = Matrices::find(&walk) {
        return matrices.transpose(gpu, width, from, to);
    }
    let operands = [(from, width), (to, width)];
    let wider = [16, 8, 4, 2].into_iter().filter(|bytes| *bytes > width);
    let widened = wider
        .filter(|bytes| bytes % width == 0)
        .find_map(|bytes| walk.widened(bytes / width, operands).map(|walk| (bytes, walk)));
    let (width, walk) = widened.unwrap_or((width, walk));
    let f = of_width(gpu, &COPY, "copy", width)?;
    let args = Args::new().ptr(from).ptr(to).i32(count(walk.n())?).bytes(&walk.to_bytes());
    launch(gpu, &f, walk.n(), &args)
}

/// Matrices to transpose.
struct Matrices {
    rows: usize,
    columns: usize,
    row_step: i64,
    column_step: i64,
    outer: Walk<2>,
}

impl Matrices {
    /// The source's rows lie along the innermost axis, along which the target has a step of 1;
    /// its columns along the axis in which the source has one.
    fn find(walk: &Walk<2>) -> Option<Self> {
        let (rows, [row_step, 1]) = *walk.axes().first()? else { return None };
        let at = walk.axes().iter().skip(1).position(|(_, steps)| steps[0] == 1)? + 1;
        let (columns, [_, column_step]) = walk.axes()[at];
        let is_worth_it = row_step != 0 && rows.min(columns) >= WORTH_A_TILE;
        let fits = rows.div_ceil(32) <= MAX_GRID as usize;
        if !is_worth_it || !fits {
            return None;
        }
        let others = (1..walk.axes().len()).rev().filter(|axis| *axis != at);
        let outer: Vec<_> = others.map(|axis| walk.axes()[axis]).collect();
        let outer = Walk::new(&outer).ok()?;
        Some(Self { rows, columns, row_step, column_step, outer })
    }

    fn transpose(
        &self,
        gpu: &Gpu,
        width: usize,
        from: DevicePtr,
        to: DevicePtr,
    ) -> Result<(), GpuError> {
        let tile = if width <= 2 { 64 } else { 32 };
        let n = self.outer.n();
        let blocks = |size: usize| size.div_ceil(tile) as u32;
        let grid = [blocks(self.columns), blocks(self.rows), n.min(MAX_GRID as usize) as u32];
        let args = Args::new()
            .ptr(from)
            .ptr(to)
            .i32(count(self.rows)?)
            .i32(count(self.columns)?)
            .u64(self.row_step as u64)
            .u64(self.column_step as u64)
            .i32(count(n)?)
            .bytes(&self.outer.to_bytes());
        let f = of_width(gpu, &COPY, "transpose", width)?;
        gpu.launch(&f, Launch { grid, block: [32, 8, 1], shared: 0, overlap: true }, &args)
    }
}

/// What padding shows, in the order of the codes in copy.cu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadMode {
    /// The fill value.
    Constant,
    /// The nearest element.
    Edge,
    /// Elements mirrored at the first and last one.
    Reflect,
    /// Elements of the other side.
    Wrap,
}

/// Puts elements around a dense tensor of shape `shape`, or takes them off: `before[i]` of axis i in
/// front, to give a dense tensor of shape `padded`. `fill` is a single element, or none for 0.
///
/// # Errors
/// If there are more axes or elements than kernels take.
pub fn pad(
    gpu: &Gpu,
    width: usize,
    (x, shape): (DevicePtr, &[usize]),
    (mode, fill): (PadMode, Option<DevicePtr>),
    before: &[i64],
    (y, padded): (DevicePtr, &[usize]),
) -> Result<(), GpuError> {
    let n: usize = padded.iter().product();
    if n == 0 {
        return Ok(());
    }
    let inner_first = |values: &[i64]| values.iter().rev().copied().collect::<Vec<i64>>();
    let sizes = |shape: &[usize]| shape.iter().rev().map(|n| *n as i64).collect::<Vec<i64>>();
    let mut steps = vec![1i64; shape.len()];
    for axis in 1..shape.len() {
        steps[axis] = steps[axis - 1] * sizes(shape)[axis - 1];
    }
    let mut fields = Fields::default();
    for values in [steps, inner_first(before), sizes(shape)] {
        fields = array(&values, 0)?.into_iter().fold(fields, Fields::i64);
    }
    for size in array(&sizes(padded), 1)? {
        fields = fields.i32(count(size as usize)?);
    }
    let plan = fields.i32(padded.len() as i32).i32(mode as i32).bytes();
    let f = of_width(gpu, &COPY, "pad", width)?;
    let args = Args::new().ptr(x).optional(fill).ptr(y).i32(count(n)?).bytes(&plan);
    launch(gpu, &f, n, &args)
}

/// Keeps the upper or lower triangle of the dense matrices of x, whose last sizes are `rows` and
/// `columns`; `diagonal` is a single i64, or none for 0.
///
/// # Errors
/// If there are too many elements.
pub fn trilu(
    gpu: &Gpu,
    width: usize,
    (x, y): (DevicePtr, DevicePtr),
    n: usize,
    (rows, columns): (usize, usize),
    (upper, diagonal): (bool, Option<DevicePtr>),
) -> Result<(), GpuError> {
    if n == 0 {
        return Ok(());
    }
    let f = of_width(gpu, &COPY, "trilu", width)?;
    let args = Args::new().ptr(x).optional(diagonal).ptr(y).i32(count(n)?);
    let args = args.i32(count(rows)?).i32(count(columns)?).i32(i32::from(upper));
    launch(gpu, &f, n, &args)
}
