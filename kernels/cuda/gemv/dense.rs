//! Products with dense weights.

use super::plan::PARTIAL_SUMS;
use super::problem::DenseGemv;
use super::sources::{DENSE, DENSE_TRANSPOSED};
use crate::{Args, Element, Function, Gpu, GpuError, Launch, Source};

/// Rows of one launch at most.
const MAX_ROWS: usize = 8;

/// A kernel with what it is compiled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DenseVariant {
    pub element: Element,
    pub kernel: DenseKernel,
}

/// Which kernel, and its constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DenseKernel {
    /// `dense_transposed.cu`; rows come in chunks of K where they don't fit shared memory.
    Tensor { warps: usize, unroll: usize, in_chunks: bool },
    /// `dense.cu`.
    Vector(Vector),
}

/// The constants of `dense.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Vector {
    pub transposed: bool,
    /// Weights a load.
    pub vector: usize,
    pub rows: usize,
    pub warps: usize,
    pub unroll: usize,
}

impl Vector {
    /// Inputs in shared memory at a time.
    fn chunk(&self) -> usize {
        SHARED_FLOATS / self.rows
    }

    fn outputs_a_warp(&self) -> usize {
        if self.rows == 1 { 1 } else { 2 }
    }
}

/// Activations that `dense.cu` keeps in shared memory at a time.
const SHARED_FLOATS: usize = 16 << 10;
/// Inputs that `dense_transposed.cu` takes at a time, where it must.
const CHUNK: usize = 4096;
/// Bytes after a row of it.
const PADDING: usize = 64;

impl DenseVariant {
    fn new(gpu: &Gpu, product: &DenseGemv, rows: usize) -> Self {
        let DenseGemv { k, n, element, trans_b, .. } = *product;
        let vector = 16 / element.bytes();
        let width = if trans_b { k } else { n };
        let is_aligned = width.is_multiple_of(vector) && product.w.0.is_multiple_of(16);
        let x_is_aligned = product.x.0.is_multiple_of(16);
        let kernel = if trans_b && element != Element::F32 && is_aligned && x_is_aligned {
            let whole = DenseKernel::Tensor { warps: 16, unroll: 2, in_chunks: false };
            let most = gpu.properties().shared_memory_per_block as usize;
            if (Self { element, kernel: whole }).shared(product, rows) <= most {
                whole
            } else {
                DenseKernel::Tensor { warps: 8, unroll: 2, in_chunks: true }
            }
        } else {
            let vector = if is_aligned { vector } else { 1 };
            let rows = rows.next_power_of_two();
            let unroll = if rows == 8 { 4 } else { 8 };
            DenseKernel::Vector(Vector { transposed: trans_b, vector, rows, warps: 16, unroll })
        };
        Self { element, kernel }
    }

    pub fn kernel(&self) -> (&'static Source, &'static str) {
        match self.kernel {
            DenseKernel::Tensor { in_chunks: false, .. } => {
                (&DENSE_TRANSPOSED, "dense_product_transposed")
            }
            DenseKernel::Tensor { .. } => (&DENSE_TRANSPOSED, "dense_product_transposed_in_chunks"),
            DenseKernel::Vector(Vector { transposed: true, .. }) => {
                (&DENSE, "dense_product_transposed")
            }
            DenseKernel::Vector(_) => (&DENSE, "dense_product"),
        }
    }

    /// The constants, by name.
    pub fn defines(&self) -> Vec<(&'static str, String)> {
        let (name, element) = self.element.define();
        let mut defines = vec![(name, element.to_owned())];
        let mut add = |name, value: usize| defines.push((name, value.to_string()));
        match self.kernel {
            DenseKernel::Tensor { warps, unroll, .. } => {
                add("IS_HALF", usize::from(self.element == Element::F16));
                add("WARPS", warps);
                add("UNROLL", unroll);
                add("CHUNK", CHUNK);
            }
            DenseKernel::Vector(v) => {
                add("VECTOR", v.vector);
                add("ROWS", v.rows);
                add("WARPS", v.warps);
                add("UNROLL", v.unroll);
                add("CHUNK", v.chunk());
                add("OUTPUTS_A_WARP", v.outputs_a_warp());
            }
        }
        defines
    }

    fn shared(&self, product: &DenseGemv, rows: usize) -> usize {
        match self.kernel {
            DenseKernel::Tensor { warps, in_chunks: false, .. } => {
                let k = product.k.next_multiple_of(64);
                rows * (2 * k + PADDING + 2 * warps * PARTIAL_SUMS)
            }
            DenseKernel::Tensor { warps, .. } => {
                rows * (2 * CHUNK + PADDING + warps * PARTIAL_SUMS)
            }
            DenseKernel::Vector(v) => 4 * (v.chunk() * v.rows).max(32 * v.warps * v.vector),
        }
    }

    fn launch(&self, gpu: &Gpu, product: &DenseGemv, rows: usize) -> Launch {
        let (n, multiprocessors) = (product.n, gpu.properties().multiprocessors as usize);
        let (blocks, warps) = match self.kernel {
            DenseKernel::Tensor { warps, in_chunks: false, .. } => {
                (n.div_ceil(16).min(multiprocessors), warps)
            }
            DenseKernel::Tensor { warps, .. } => (n.div_ceil(16), warps),
            DenseKernel::Vector(v) if v.transposed => {
                (n.div_ceil(v.warps * v.outputs_a_warp()), v.warps)
            }
            DenseKernel::Vector(v) => (n.div_ceil(v.vector).div_ceil(width(gpu, v, n)), v.warps),
        };
        Launch::linear(blocks, 32 * warps as u32)
            .with_shared(self.shared(product, rows))
            .overlapping()
    }
}

/// Vectors of outputs of a block of `dense_product`, so that all multiprocessors have the same.
fn width(gpu: &Gpu, v: Vector, n: usize) -> usize {
    /// At least 64 bytes of a row of weights, and two threads or more an output.
    const RANGE: (usize, usize) = (4, 256);
    let vectors = n.div_ceil(v.vector);
    let multiprocessors = gpu.properties().multiprocessors as usize;
    let waves = vectors.div_ceil(multiprocessors * RANGE.1);
    vectors.div_ceil(multiprocessors * waves).clamp(RANGE.0, RANGE.1)
}

/// Multiplies, as many rows at a time as a kernel takes.
pub(super) fn run(
    gpu: &Gpu,
    product: &DenseGemv,
    function: impl Fn(&DenseVariant) -> Result<Function, GpuError>,
) -> Result<(), GpuError> {
    product.check()?;
    let &DenseGemv { k, n, out_stride, .. } = product;
    let bytes = product.element.bytes();
    for first in (0..product.rows).step_by(MAX_ROWS) {
        let rows = MAX_ROWS.min(product.rows - first);
        let part = DenseGemv { x: product.x.offset(first * k * bytes), ..*product };
        let variant = DenseVariant::new(gpu, &part, rows);
        let mut args = Args::new()
            .ptr(part.x)
            .ptr(product.w)
            .optional(product.bias)
            .optional(product.residual.map(|residual| residual.offset(first * n * bytes)))
            .ptr(product.out.offset(first * out_stride * bytes))
            .size(out_stride)
            .size(rows)
            .size(k)
            .size(n);
        if let DenseKernel::Vector(v @ Vector { transposed: false, .. }) = variant.kernel {
            args = args.size(width(gpu, v, n));
        }
        gpu.launch(&function(&variant)?, variant.launch(gpu, product, rows), &args)?;
    }
    Ok(())
}
