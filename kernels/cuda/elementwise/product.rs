//! Matrix products on CUDA cores.

use super::number::{MAX_GRID, Number, count, grid, typed};
use super::walk::{Fields, Walk};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Launch, Source};

pub(super) static PRODUCT: Source = Source {
    name: "product.cu",
    text: include_str!("product.cu"),
    archs: Archs::All,
    variants: &[
        &[Number::F32.define()],
        &[Number::F16.define()],
        &[Number::BF16.define()],
        &[Number::I64.define()],
        &[Number::I32.define()],
    ],
};

/// Products `y = alpha · a · b + bias` of one type of elements.
#[derive(Debug, Clone)]
pub struct Product {
    /// Matrices `[m, k]`, and the steps between their rows and columns.
    pub a: (DevicePtr, [i64; 2]),
    /// Matrices `[k, n]`, and the steps between their rows and columns.
    pub b: (DevicePtr, [i64; 2]),
    /// `[n]`.
    pub bias: Option<DevicePtr>,
    /// Dense, a matrix `[m, n]` for each product.
    pub y: DevicePtr,
    /// Rows of a.
    pub m: usize,
    /// Columns of a.
    pub k: usize,
    /// Columns of b.
    pub n: usize,
    /// Of floats only.
    pub alpha: f32,
    /// Where the factors of each product begin, in elements.
    pub batch: Walk<2>,
}

/// A kernel for products: its name, and rows and columns of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductKernel {
    /// A thread for each element: the reference.
    Plain,
    /// Parts of k for neighbouring elements of a row.
    Columns,
    /// A warp for each element.
    Dots,
    /// Tiles in shared memory.
    Tiled,
}

impl ProductKernel {
    fn shape(self) -> (&'static str, [usize; 2]) {
        match self {
            Self::Plain => ("product_plain", [8, 32]),
            Self::Columns => ("product_columns", [1, 32]),
            Self::Dots => ("product_dots", [1, 8]),
            Self::Tiled => ("product_tiled", [64, 64]),
        }
    }
}

impl Product {
    /// Runs it on elements of type `number` (floats, i64, i32).
    ///
    /// # Errors
    /// For other types, and if there are too many elements.
    pub fn run(&self, gpu: &Gpu, number: Number) -> Result<(), GpuError> {
        let is_flat = self.m <= 4;
        let kernel = match self.b.1 {
            [1, _] if is_flat => ProductKernel::Dots,
            _ if is_flat => ProductKernel::Columns,
            _ => ProductKernel::Tiled,
        };
        self.run_as(gpu, number, kernel)
    }

    /// Runs it by one kernel.
    ///
    /// # Errors
    /// As [`Product::run`].
    pub fn run_as(&self, gpu: &Gpu, number: Number, kernel: ProductKernel) -> Result<(), GpuError> {
        if matches!(number, Number::I8 | Number::U8 | Number::Bool) {
            return Err(GpuError::unsupported("matrices of bytes are not multiplied here"));
        }
        let products = self.batch.n();
        if products * self.m * self.n == 0 {
            return Ok(());
        }
        let pointers = [Some(self.a.0), Some(self.b.0), self.bias, Some(self.y)];
        let fields = pointers.into_iter().fold(Fields::default(), Fields::ptr);
        let fields = [self.a.1, self.b.1].concat().into_iter().fold(fields, Fields::i64);
        let fields = fields.i32(count(self.m)?).i32(count(self.n)?).i32(count(self.k)?);
        let fields = fields.i32(count(products)?).f32(self.alpha);
        let args = Args::new().bytes(&fields.bytes()).bytes(&self.batch.to_bytes());
        let (entry, [rows, columns]) = kernel.shape();
        let blocks = [
            count(self.n.div_ceil(columns))? as u32,
            grid(self.m.div_ceil(rows))?,
            products.min(MAX_GRID as usize) as u32,
        ];
        let f = typed(gpu, &PRODUCT, entry, number)?;
        let launch = Launch { grid: blocks, block: [256, 1, 1], shared: 0, overlap: true };
        gpu.launch(&f, launch, &args)
    }
}
