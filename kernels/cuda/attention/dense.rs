//! Attention over whole sequences, and its gradients, for learning: no cache, no mask but the causal one.

use super::{int, launch_size, sources};
use crate::elementwise::Heads;
use crate::timer::median_us;
use crate::{Args, DeviceBuffer, DevicePtr, Function, Gpu, GpuError, Launch};

/// Rows of a tile, as in dense_tiles.cuh.
const TILE: usize = 64;

/// One of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Forward,
    BackwardQueries,
    BackwardKeys,
}

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Products {
    Mma,
    Wgmma,
}

/// How a kernel is compiled: groups of four warps of a block, blocks that are to fit a processor.
struct Shape {
    groups: usize,
    blocks: usize,
}

impl Kernel {
    fn entry(self) -> &'static str {
        match self {
            Self::Forward => "dense_forward",
            Self::BackwardQueries => "dense_backward_queries",
            Self::BackwardKeys => "dense_backward_keys",
        }
    }

    /// What was fastest on an H100 (`cuda-bench learning`) by wgmma; else as many rows as registers
    /// and shared memory hold, since what a block reads of the other side is shared by all.
    fn shape(self, size: usize, by: Products) -> Shape {
        let (groups, blocks) = match (by, self, size > 64) {
            (Products::Wgmma, Self::Forward, false) => (1, 4),
            (Products::Wgmma, _, false) => (1, 2),
            (Products::Wgmma, _, true) | (Products::Mma, _, false) => (2, 1),
            (Products::Mma, _, true) => (1, 1),
        };
        Shape { groups, blocks }
    }

    /// Tiles of a block's own rows, and tiles that it walks, two stages of each.
    fn tiles(self) -> (usize, usize) {
        if self == Self::Forward { (1, 4) } else { (2, 4) }
    }
}

/// Attention of queries over keys and values, f32 in memory; products take bfloat16. The heads of keys
/// and values are shared by as many query heads each.
#[derive(Debug, Clone, Copy)]
pub struct DenseAttention {
    /// Queries.
    pub q: (DevicePtr, Heads),
    /// Keys.
    pub k: (DevicePtr, Heads),
    /// Values, laid out as keys.
    pub v: (DevicePtr, Heads),
    /// Query i sees the keys up to i only.
    pub is_causal: bool,
    /// Factor on products.
    pub scale: f32,
}

/// Where the gradients go.
#[derive(Debug, Clone, Copy)]
pub struct DenseGradients {
    /// That of the result, laid out as q.
    pub dy: DevicePtr,
    /// That of q, laid out as q.
    pub dq: DevicePtr,
    /// That of k, laid out as k.
    pub dk: DevicePtr,
    /// That of v, laid out as v.
    pub dv: DevicePtr,
}

/// What kernels read: packed operands, and what the way forward leaves for the way back.
struct Packed {
    q: DeviceBuffer,
    k: DeviceBuffer,
    v: DeviceBuffer,
    dy: Option<DeviceBuffer>,
    sums: Option<DeviceBuffer>,
}

impl DenseAttention {
    /// Whether it is of shapes that the kernels take.
    pub fn fits(&self) -> bool {
        let (q, k, v) = (self.q.1, self.k.1, self.v.1);
        k == v
            && (q.batch, q.size) == (k.batch, k.size)
            && k.heads > 0
            && q.heads.is_multiple_of(k.heads)
            && self.scale > 0.0
            && matches!(q.size, 16 | 32 | 48 | 64 | 80 | 96 | 112 | 128)
            && (!self.is_causal || q.rows == k.rows)
            && q.rows > 0
            && k.rows > 0
    }

    /// Writes the result, f32, laid out as q.
    ///
    /// # Errors
    /// If there are too many elements, or no memory.
    pub fn forward(&self, gpu: &Gpu, y: DevicePtr) -> Result<(), GpuError> {
        self.forward_by(gpu, self.products(gpu), y)
    }

    /// Writes the gradients, f32.
    ///
    /// # Errors
    /// As [`DenseAttention::forward`].
    pub fn backward(&self, gpu: &Gpu, gradients: &DenseGradients) -> Result<(), GpuError> {
        self.backward_by(gpu, self.products(gpu), gradients)
    }

    /// What multiplies on this GPU.
    pub(super) fn products(&self, gpu: &Gpu) -> Products {
        match gpu.properties().has_wgmma() && self.q.1.size.is_multiple_of(64) {
            true => Products::Wgmma,
            false => Products::Mma,
        }
    }

    pub(super) fn forward_by(&self, gpu: &Gpu, by: Products, y: DevicePtr) -> Result<(), GpuError> {
        let packed = self.pack(gpu, None)?;
        let args = self.args(gpu, &packed, Some(y), None)?;
        self.launch(gpu, by, Kernel::Forward, &args)
    }

    pub(super) fn backward_by(
        &self,
        gpu: &Gpu,
        by: Products,
        gradients: &DenseGradients,
    ) -> Result<(), GpuError> {
        let packed = self.pack(gpu, Some(gradients.dy))?;
        let args = self.args(gpu, &packed, None, Some(gradients))?;
        for kernel in [Kernel::Forward, Kernel::BackwardQueries, Kernel::BackwardKeys] {
            self.launch(gpu, by, kernel, &args)?;
        }
        Ok(())
    }

    /// Microseconds of each kernel of the gradients alone, with how many products of scores it has.
    pub(super) fn times(
        &self,
        gpu: &Gpu,
        gradients: &DenseGradients,
        repeats: usize,
    ) -> Result<Vec<(&'static str, f64, f64)>, GpuError> {
        let packed = self.pack(gpu, Some(gradients.dy))?;
        let args = self.args(gpu, &packed, None, Some(gradients))?;
        let kernels = [
            (Kernel::Forward, "their sums", 2.0),
            (Kernel::BackwardQueries, "of queries", 3.0),
            (Kernel::BackwardKeys, "of keys and values", 4.0),
        ];
        let time = |(kernel, what, products)| {
            let by = self.products(gpu);
            let us = median_us(gpu, repeats, || self.launch(gpu, by, kernel, &args))?;
            Ok((what, products, us))
        };
        kernels.into_iter().map(time).collect()
    }

    /// Queries of a head, up to whole tiles.
    fn padded(&self) -> usize {
        self.q.1.rows.next_multiple_of(TILE)
    }

    fn pack(&self, gpu: &Gpu, dy: Option<DevicePtr>) -> Result<Packed, GpuError> {
        let f = self.function(gpu, Products::Mma, Kernel::Forward, "dense_pack")?;
        let pack = |from: DevicePtr, heads: Heads| {
            let to = gpu.alloc(2 * heads.n())?;
            let n = heads.n() / 4;
            let args = Args::new().ptr(from).ptr(to.ptr()).bytes(&bytes_of(heads));
            let args = args.i32(int(heads.heads)?).i32(int(heads.rows)?).i32(int(n)?);
            gpu.launch(&f, Launch::linear(n.div_ceil(256), 256).overlapping(), &args)?;
            Ok::<_, GpuError>(to)
        };
        let rows = self.q.1.batch * self.q.1.heads * self.padded();
        Ok(Packed {
            q: pack(self.q.0, self.q.1)?,
            k: pack(self.k.0, self.k.1)?,
            v: pack(self.v.0, self.v.1)?,
            dy: dy.map(|dy| pack(dy, self.q.1)).transpose()?,
            sums: dy.map(|_| gpu.alloc(8 * rows)).transpose()?,
        })
    }

    /// The structure `Problem` of dense_problem.cuh.
    fn args(
        &self,
        gpu: &Gpu,
        packed: &Packed,
        y: Option<DevicePtr>,
        gradients: Option<&DenseGradients>,
    ) -> Result<Args, GpuError> {
        let (q, k) = (self.q.1, self.k.1);
        let rows = q.batch * q.heads * self.padded();
        let lse = packed.sums.as_ref().map(DeviceBuffer::ptr);
        let pointers = [
            Some(packed.q.ptr()),
            Some(packed.k.ptr()),
            Some(packed.v.ptr()),
            packed.dy.as_ref().map(DeviceBuffer::ptr),
            gradients.map(|g| g.dy),
            y,
            lse,
            lse.map(|at| at.offset(4 * rows)),
            gradients.map(|g| g.dq),
            gradients.map(|g| g.dk),
            gradients.map(|g| g.dv),
        ];
        let mut bytes: Vec<u8> = Vec::new();
        for pointer in pointers {
            bytes.extend(pointer.unwrap_or(DevicePtr::NULL).0.to_ne_bytes());
        }
        bytes.extend(bytes_of(q));
        bytes.extend(bytes_of(k));
        for size in [q.heads, k.heads, q.rows, k.rows, self.padded()] {
            bytes.extend(int(size)?.to_ne_bytes());
        }
        bytes.extend(u32::from(self.is_causal).to_ne_bytes());
        bytes.extend(gpu.properties().multiprocessors.to_ne_bytes());
        bytes.extend(self.scale.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Ok(Args::new().bytes(&bytes))
    }

    fn function(
        &self,
        gpu: &Gpu,
        by: Products,
        kernel: Kernel,
        entry: &str,
    ) -> Result<Function, GpuError> {
        let source = match (by, kernel) {
            (Products::Mma, Kernel::Forward) => &sources::DENSE,
            (Products::Mma, _) => &sources::DENSE_GRADS,
            (Products::Wgmma, Kernel::Forward) => &sources::DENSE_HOPPER,
            (Products::Wgmma, _) => &sources::DENSE_GRADS_HOPPER,
        };
        let Shape { groups, blocks } = kernel.shape(self.q.1.size, by);
        let definitions = [self.q.1.size, groups, blocks].map(|n| n.to_string());
        let [size, groups, blocks] = definitions.each_ref().map(String::as_str);
        gpu.function(source, entry, &[("D", size), ("GROUPS", groups), ("BLOCKS", blocks)])
    }

    /// A block for as many rows of a head as it takes.
    fn launch(&self, gpu: &Gpu, by: Products, kernel: Kernel, args: &Args) -> Result<(), GpuError> {
        let Shape { groups, .. } = kernel.shape(self.q.1.size, by);
        let of = if kernel == Kernel::BackwardKeys { self.k.1 } else { self.q.1 };
        let blocks = launch_size(of.rows.div_ceil(groups * TILE) * of.heads * of.batch)?;
        let (own, walked) = kernel.tiles();
        // Tiles, the sums of rows that go with walked queries, and what the start is moved by.
        let shared = (own * groups + walked) * self.tile_bytes() + 4 * TILE * 4 + 1_024;
        let threads = launch_size(128 * groups)?;
        let launch =
            Launch { grid: [blocks, 1, 1], block: [threads, 1, 1], shared: 0, overlap: true };
        gpu.launch(
            &self.function(gpu, by, kernel, kernel.entry())?,
            launch.with_shared(shared),
            args,
        )
    }

    /// As in dense_tiles.cuh.
    fn tile_bytes(&self) -> usize {
        let size = self.q.1.size;
        2 * TILE * if size.is_multiple_of(64) { size } else { size + 8 }
    }
}

/// The structure `Heads` of dense_problem.cuh.
fn bytes_of(heads: Heads) -> Vec<u8> {
    heads.steps().into_iter().flat_map(i64::to_ne_bytes).collect()
}
