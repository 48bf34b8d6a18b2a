//! Attention over whole sequences, and its gradients, for learning: no cache, no mask but the causal one.

use super::{int, launch_size, sources};
use crate::elementwise::Heads;
use crate::{Args, DeviceBuffer, DevicePtr, Function, Gpu, GpuError, Launch};

/// Rows of a tile, threads of a block, and channels that are added to a row in shared memory, as in
/// dense.cu.
const TILE: usize = 64;
const THREADS: u32 = 128;
const PADDING: usize = 8;

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
        let packed = self.pack(gpu, None)?;
        let args = self.args(&packed, Some(y), None)?;
        self.launch(gpu, "dense_forward", self.query_blocks()?, 5, &args)
    }

    /// Writes the gradients, f32.
    ///
    /// # Errors
    /// As [`DenseAttention::forward`].
    pub fn backward(&self, gpu: &Gpu, gradients: &DenseGradients) -> Result<(), GpuError> {
        let packed = self.pack(gpu, Some(gradients.dy))?;
        let args = self.args(&packed, None, Some(gradients))?;
        self.launch(gpu, "dense_forward", self.query_blocks()?, 5, &args)?;
        self.launch(gpu, "dense_backward_queries", self.query_blocks()?, 6, &args)?;
        let k = self.k.1;
        let blocks = [k.rows.div_ceil(TILE), k.heads, k.batch];
        let [x, y, z] = blocks.map(launch_size);
        self.launch(gpu, "dense_backward_keys", [x?, y?, z?], 6, &args)
    }

    /// Queries of a head, up to whole tiles.
    fn padded(&self) -> usize {
        self.q.1.rows.next_multiple_of(TILE)
    }

    fn pack(&self, gpu: &Gpu, dy: Option<DevicePtr>) -> Result<Packed, GpuError> {
        let f = self.function(gpu, "dense_pack")?;
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

    /// The structure `Problem` of dense.cu.
    fn args(
        &self,
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
        bytes.extend(self.scale.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Ok(Args::new().bytes(&bytes))
    }

    fn query_blocks(&self) -> Result<[u32; 3], GpuError> {
        let q = self.q.1;
        let [x, y, z] = [q.rows.div_ceil(TILE), q.heads, q.batch].map(launch_size);
        Ok([x?, y?, z?])
    }

    fn function(&self, gpu: &Gpu, entry: &str) -> Result<Function, GpuError> {
        gpu.function(&sources::DENSE, entry, &[("D", &self.q.1.size.to_string())])
    }

    fn launch(
        &self,
        gpu: &Gpu,
        entry: &str,
        grid: [u32; 3],
        tiles: usize,
        args: &Args,
    ) -> Result<(), GpuError> {
        let shared = tiles * TILE * (self.q.1.size + PADDING) * 2 + 4 * TILE * 4;
        let launch = Launch { grid, block: [THREADS, 1, 1], shared: 0, overlap: true };
        gpu.launch(&self.function(gpu, entry)?, launch.with_shared(shared), args)
    }
}

/// The structure `Heads` of dense.cu.
fn bytes_of(heads: Heads) -> Vec<u8> {
    heads.steps().into_iter().flat_map(i64::to_ne_bytes).collect()
}
