//! Reductions over axes.

use super::gather::dense;
use super::number::{ALL, Number, count, launch_blocks, typed};
use super::walk::Walk;
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static REDUCE: Source =
    Source { name: "reduce.cu", text: include_str!("reduce.cu"), archs: Archs::All, variants: ALL };

/// Results that can have a large block each.
const FEW: usize = 256;

/// A reduction, in the order of the codes in reduce.cu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// The sum.
    Sum,
    /// The mean; of integers rounded toward 0.
    Mean,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// The product.
    Prod,
    /// The sum of squares.
    SumSquare,
    /// The sum of absolute values.
    L1,
    /// The root of the sum of squares.
    L2,
}

/// Reduces a dense tensor of shape `shape` over the axes marked in `reduced`; y is dense, of the
/// sizes that are left.
///
/// # Errors
/// If there are more axes or elements than kernels take.
pub fn reduce(
    gpu: &Gpu,
    (op, number): (Reduce, Number),
    (x, shape): (DevicePtr, &[usize]),
    reduced: &[bool],
    y: DevicePtr,
) -> Result<(), GpuError> {
    let steps = dense(shape);
    let walk = |wanted: bool| {
        let axes = (0..shape.len()).filter(|axis| reduced[*axis] == wanted);
        let axes: Vec<_> = axes.map(|axis| (shape[axis], [steps[axis]])).collect();
        Walk::new(&axes)
    };
    let (kept, gone) = (walk(false)?, walk(true)?);
    let (n, n_gone) = (kept.n(), gone.n());
    if n == 0 {
        return Ok(());
    }
    let args = Args::new().i32(op as i32).ptr(x).ptr(y).i32(count(n)?).i32(count(n_gone)?);
    let args = args.bytes(&kept.to_bytes()).bytes(&gone.to_bytes());
    let is_along_rows = gone.axes().first().is_none_or(|(_, [step])| *step == 1);
    let (entry, blocks, threads) = match n_gone {
        // Neighbouring results lie side by side: columns.
        _ if !is_along_rows && n >= 32 => ("reduce_columns", n.div_ceil(32), 1024),
        0..=512 => ("reduce_warp", n.div_ceil(8), 256),
        // Too few results to fill a GPU: each as fast as one block can.
        2049.. if n <= FEW => ("reduce_wide", n, 1024),
        _ => ("reduce_block", n, 256),
    };
    let f = typed(gpu, &REDUCE, entry, number)?;
    launch_blocks(gpu, &f, blocks, threads, &args)
}
