//! Products with dense weights.

use super::plan::PARTIAL_SUMS;
use super::problem::DenseGemv;
use super::sources::{DENSE, DENSE_TENSOR, DENSE_TRANSPOSED};
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
    /// `dense_tensor.cu`.
    Tensor { warps: usize, unroll: usize, tiles: usize },
    /// `dense_transposed.cu`; rows come in chunks of K where they don't fit shared memory.
    Transposed { warps: usize, unroll: usize, in_chunks: bool },
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
/// Bytes of activations that `dense_tensor.cu` takes at a time.
const TENSOR_SHARED: usize = 128 << 10;
/// Bytes after a row of it.
const TENSOR_PADDING: usize = 32;

impl DenseVariant {
    fn new(gpu: &Gpu, product: &DenseGemv, rows: usize) -> Self {
        let DenseGemv { k, n, element, trans_b, .. } = *product;
        let vector = 16 / element.bytes();
        let width = if trans_b { k } else { n };
        let is_aligned = width.is_multiple_of(vector) && product.w.0.is_multiple_of(16);
        let x_is_aligned = k.is_multiple_of(vector) && product.x.0.is_multiple_of(16);
        let for_tensor_cores = element != Element::F32 && is_aligned && x_is_aligned;
        let kernel = if for_tensor_cores && trans_b {
            let whole = DenseKernel::Transposed { warps: 16, unroll: 2, in_chunks: false };
            let most = gpu.properties().shared_memory_per_block as usize;
            if (Self { element, kernel: whole }).shared(gpu, product, rows) <= most {
                whole
            } else {
                DenseKernel::Transposed { warps: 8, unroll: 2, in_chunks: true }
            }
        } else if for_tensor_cores {
            let tiles = tensor_width(gpu, n).div_ceil(8);
            DenseKernel::Tensor { warps: 16, unroll: 2, tiles }
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
            DenseKernel::Tensor { .. } => (&DENSE_TENSOR, "dense_product"),
            DenseKernel::Transposed { in_chunks: false, .. } => {
                (&DENSE_TRANSPOSED, "dense_product_transposed")
            }
            DenseKernel::Transposed { .. } => {
                (&DENSE_TRANSPOSED, "dense_product_transposed_in_chunks")
            }
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
        let is_half = usize::from(self.element == Element::F16);
        match self.kernel {
            DenseKernel::Tensor { warps, unroll, tiles } => {
                add("IS_HALF", is_half);
                add("WARPS", warps);
                add("UNROLL", unroll);
                add("TILES", tiles);
            }
            DenseKernel::Transposed { warps, unroll, .. } => {
                add("IS_HALF", is_half);
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

    fn shared(&self, gpu: &Gpu, product: &DenseGemv, rows: usize) -> usize {
        match self.kernel {
            DenseKernel::Tensor { warps, unroll, tiles } => {
                let chunk = tensor_chunk(gpu, product.k, rows, 16 * warps * unroll);
                let sums = warps * rows * (tiles * 64 + 4) * 4;
                (rows * (2 * chunk + TENSOR_PADDING)).max(sums)
            }
            DenseKernel::Transposed { warps, in_chunks: false, .. } => {
                let k = product.k.next_multiple_of(64);
                rows * (2 * k + PADDING + 2 * warps * PARTIAL_SUMS)
            }
            DenseKernel::Transposed { warps, .. } => {
                rows * (2 * CHUNK + PADDING + warps * PARTIAL_SUMS)
            }
            DenseKernel::Vector(v) => 4 * (v.chunk() * v.rows).max(32 * v.warps * v.vector),
        }
    }

    fn launch(&self, gpu: &Gpu, product: &DenseGemv, rows: usize) -> Launch {
        let (n, multiprocessors) = (product.n, gpu.properties().multiprocessors as usize);
        let (blocks, warps) = match self.kernel {
            DenseKernel::Tensor { warps, .. } => {
                (n.div_ceil(8).div_ceil(tensor_width(gpu, n)), warps)
            }
            DenseKernel::Transposed { warps, in_chunks: false, .. } => {
                (n.div_ceil(16).min(multiprocessors), warps)
            }
            DenseKernel::Transposed { warps, .. } => (n.div_ceil(16), warps),
            DenseKernel::Vector(v) if v.transposed => {
                (n.div_ceil(v.warps * v.outputs_a_warp()), v.warps)
            }
            DenseKernel::Vector(v) => {
                (n.div_ceil(v.vector).div_ceil(vector_width(gpu, v, n)), v.warps)
            }
        };
        Launch::linear(blocks, 32 * warps as u32)
            .with_shared(self.shared(gpu, product, rows))
            .overlapping()
    }

    /// The arguments that only some kernels have.
    fn add_args(&self, gpu: &Gpu, product: &DenseGemv, rows: usize, args: Args) -> Args {
        match self.kernel {
            DenseKernel::Tensor { warps, unroll, .. } => args
                .size(tensor_width(gpu, product.n))
                .size(tensor_chunk(gpu, product.k, rows, 16 * warps * unroll)),
            DenseKernel::Vector(v) if !v.transposed => args.size(vector_width(gpu, v, product.n)),
            _ => args,
        }
    }
}

/// Vectors of outputs of a block of `dense.cu`: at least 64 bytes of a row of weights, and two
/// threads or more an output.
fn vector_width(gpu: &Gpu, v: Vector, n: usize) -> usize {
    width(gpu, n.div_ceil(v.vector), 4, 256)
}

/// Eights of outputs of a block of `dense_tensor.cu`: up to two tiles of eight.
fn tensor_width(gpu: &Gpu, n: usize) -> usize {
    width(gpu, n.div_ceil(8), 4, 16)
}

/// Vectors a block, from `least` to `most`, so that all multiprocessors have the same.
fn width(gpu: &Gpu, vectors: usize, least: usize, most: usize) -> usize {
    let multiprocessors = gpu.properties().multiprocessors as usize;
    let waves = vectors.div_ceil(multiprocessors * most);
    vectors.div_ceil(multiprocessors * waves).clamp(least, most)
}

/// Inputs of all rows in shared memory at a time, a multiple of `step`.
fn tensor_chunk(gpu: &Gpu, k: usize, rows: usize, step: usize) -> usize {
    let most = TENSOR_SHARED.min(gpu.properties().shared_memory_per_block as usize);
    let fits = (most / rows - TENSOR_PADDING) / 2 / step * step;
    k.next_multiple_of(step).min(fits.max(step))
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
        let args = Args::new()
            .ptr(part.x)
            .ptr(product.w)
            .optional(product.bias)
            .optional(product.residual.map(|residual| residual.offset(first * n * bytes)))
            .ptr(product.out.offset(first * out_stride * bytes))
            .size(out_stride)
            .size(rows)
            .size(k)
            .size(n);
        let args = variant.add_args(gpu, product, rows, args);
        gpu.launch(&function(&variant)?, variant.launch(gpu, product, rows), &args)?;
    }
    Ok(())
}
