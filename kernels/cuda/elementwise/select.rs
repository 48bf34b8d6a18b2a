//! Choice between two operands.

use super::number::{WIDTHS, count, launch, of_width};
use super::walk::Walk;
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static SELECT: Source = Source {
    name: "select.cu",
    text: include_str!("select.cu"),
    archs: Archs::All,
    variants: WIDTHS,
};

/// `y = c ? a : b`, dense operands of `width` bytes an element (c of bools), broadcast to `shape`.
///
/// # Errors
/// Shapes that do not broadcast.
pub fn select(
    gpu: &Gpu,
    width: usize,
    (c, c_shape): (DevicePtr, &[usize]),
    (a, a_shape): (DevicePtr, &[usize]),
    (b, b_shape): (DevicePtr, &[usize]),
    (y, shape): (DevicePtr, &[usize]),
) -> Result<(), GpuError> {
    let walk = Walk::broadcast([c_shape, a_shape, b_shape], shape)?;
    if shape.contains(&0) {
        return Ok(());
    }
    let stretched = walk.stretched(16 / width.clamp(1, 16), [(c, 1), (a, width), (b, width)]);
    let (entry, walk) = match stretched.filter(|_| y.0.is_multiple_of(16)) {
        Some(stretched) => ("select_vector", stretched),
        None => ("select_scalar", walk),
    };
    let f = of_width(gpu, &SELECT, entry, width)?;
    let args = Args::new().ptr(c).ptr(a).ptr(b).ptr(y).i32(count(walk.n())?);
    launch(gpu, &f, walk.n(), &args.bytes(&walk.to_bytes()))
}
