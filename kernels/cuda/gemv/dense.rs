//! Products with dense weights.

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
    /// `dense_transposed.cu`.
    Tensor { warps: usize, unroll: usize, chunk: usize },
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
    pub lanes_n: usize,
    pub unroll: usize,
    pub chunk: usize,
    pub outputs_a_warp: usize,
}

impl DenseVariant {
    fn new(product: &DenseGemv, rows: usize) -> Self {
        let DenseGemv { k, n, element, trans_b, .. } = *product;
        let vector = 16 / element.bytes();
        let width = if trans_b { k } else { n };
        let is_aligned = width.is_multiple_of(vector) && product.w.0.is_multiple_of(16);
        let x_is_aligned = product.x.0.is_multiple_of(16);
        let kernel = if trans_b && element != Element::F32 && is_aligned && x_is_aligned {
            DenseKernel::Tensor { warps: 8, unroll: 2, chunk: 4096 }
        } else {
            let rows = rows.next_power_of_two();
            let outputs_a_warp = if rows == 1 { 1 } else { 2 };
            DenseKernel::Vector(Vector {
                transposed: trans_b,
                vector: if is_aligned { vector } else { 1 },
                rows,
                warps: 8,
                lanes_n: if n >= 8192 { 8 } else { 4 },
                unroll: if rows == 8 { 4 } else { 8 },
                chunk: if rows == 1 { 4096 } else { 2048 },
                outputs_a_warp,
            })
        };
        Self { element, kernel }
    }

    pub fn kernel(&self) -> (&'static Source, &'static str) {
        match self.kernel {
            DenseKernel::Tensor { .. } => (&DENSE_TRANSPOSED, "dense_product_transposed"),
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
            DenseKernel::Tensor { warps, unroll, chunk } => {
                add("IS_HALF", usize::from(self.element == Element::F16));
                add("WARPS", warps);
                add("UNROLL", unroll);
                add("CHUNK", chunk);
            }
            DenseKernel::Vector(v) => {
                add("VECTOR", v.vector);
                add("ROWS", v.rows);
                add("WARPS", v.warps);
                add("LANES_N", v.lanes_n);
                add("UNROLL", v.unroll);
                add("CHUNK", v.chunk);
                add("OUTPUTS_A_WARP", v.outputs_a_warp);
            }
        }
        defines
    }

    fn launch(&self, product: &DenseGemv, rows: usize) -> Launch {
        let (blocks, warps, shared) = match self.kernel {
            DenseKernel::Tensor { warps, chunk, .. } => {
                (product.n.div_ceil(16), warps, rows * (chunk * 2 + 64))
            }
            DenseKernel::Vector(v) if v.transposed => {
                (product.n.div_ceil(v.warps * v.outputs_a_warp), v.warps, v.chunk * v.rows * 4)
            }
            DenseKernel::Vector(v) => {
                let outputs = v.lanes_n * v.vector;
                let shared = v.chunk.max(v.warps * outputs) * v.rows * 4;
                (product.n.div_ceil(outputs), v.warps, shared)
            }
        };
        Launch::linear(blocks, 32 * warps as u32).with_shared(shared).overlapping()
    }
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
        let variant = DenseVariant::new(&part, rows);
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
        gpu.launch(&function(&variant)?, variant.launch(product, rows), &args)?;
    }
    Ok(())
}
