//! Launching products with packed weights.

use super::plan::{Shape, UNIT, Variant, max_rows, plan};
use super::problem::Packed;
use super::sources::{FEW, MANY, MANY_HOPPER};
use crate::{Args, Function, Gpu, GpuError, Launch, Source};

/// The source and entry of a variant.
pub(super) fn kernel(variant: &Variant) -> (&'static Source, &'static str) {
    match variant.shape {
        Shape::Few { .. } => (&FEW, "product_of_few"),
        Shape::Many(_) => (&MANY, "product_of_many"),
        Shape::Hopper(_) => (&MANY_HOPPER, "product_of_many"),
    }
}

/// Multiplies, as many rows at a time as a kernel takes, each time as `shape` or the plan says.
pub(super) fn run(
    gpu: &Gpu,
    product: &Packed<'_>,
    shape: Option<Shape>,
    function: impl Fn(&Variant) -> Result<Function, GpuError>,
) -> Result<(), GpuError> {
    product.check()?;
    let step = max_rows(product);
    for first in (0..product.rows).step_by(step) {
        let rows = step.min(product.rows - first);
        let planned = plan(gpu.properties(), product, rows);
        let variant = Variant { shape: shape.unwrap_or(planned.shape), ..planned };
        let launch = launch(gpu, &variant, product, rows);
        gpu.launch(&function(&variant)?, launch, &args(product, first, rows))?;
    }
    Ok(())
}

fn launch(gpu: &Gpu, variant: &Variant, product: &Packed<'_>, rows: usize) -> Launch {
    let (n, multiprocessors) = (product.weights.n, gpu.properties().multiprocessors as usize);
    let (grid, warps) = match variant.shape {
        Shape::Few { warps, blocks, .. } => {
            ([n.div_ceil(16).min(multiprocessors * blocks), 1, 1], warps)
        }
        Shape::Many(many) => {
            ([many.cluster, n.div_ceil(many.outputs()), 1], many.warps_n * many.warps_k)
        }
        Shape::Hopper(shape) => {
            let clusters = n.div_ceil(shape.outputs()).min(shape.clusters(multiprocessors));
            ([shape.cluster, clusters, 1], 4 * shape.groups_n * shape.groups_k)
        }
    };
    let shared = variant.shared(product, rows, multiprocessors) as u32;
    Launch { grid: grid.map(|n| n as u32), block: [32 * warps as u32, 1, 1], shared, overlap: true }
}

/// The arguments for `rows` rows from `first` on.
fn args(product: &Packed<'_>, first: usize, rows: usize) -> Args {
    let (weights, bytes) = (product.weights, product.element.bytes());
    let x_scale = product.x_scale.map(|scales| scales.offset(first * 4));
    let residual = product.residual.map(|residual| residual.offset(first * weights.n * bytes));
    Args::new()
        .ptr(product.x.offset(first * product.k * product.x_bytes()))
        .optional(x_scale)
        .ptr(weights.ptr())
        .ptr(product.w_scale)
        .optional(product.bias)
        .optional(residual)
        .bytes(&outputs(product, first))
        .size(rows)
        .size(product.k)
        .size(weights.n)
        .size(weights.padded_k / UNIT)
        .size(product.block_size)
}

/// `Outputs` of `stream.cuh`.
fn outputs(product: &Packed<'_>, first_row: usize) -> [u8; 64] {
    let mut bytes = [0; 64];
    let all = [(0, product.out, product.out_stride)]
        .into_iter()
        .chain(product.more.iter().map(|more| (more.start, more.to, more.stride)));
    for i in 0..4 {
        bytes[32 + 4 * i..36 + 4 * i].copy_from_slice(&i32::MAX.to_ne_bytes());
    }
    for (i, (start, to, stride)) in all.enumerate() {
        let to = to.offset(first_row * stride * product.element.bytes());
        bytes[8 * i..8 * i + 8].copy_from_slice(&to.0.to_ne_bytes());
        bytes[32 + 4 * i..36 + 4 * i].copy_from_slice(&(start as i32).to_ne_bytes());
        bytes[48 + 4 * i..52 + 4 * i].copy_from_slice(&(stride as i32).to_ne_bytes());
    }
    bytes
}
