//! Which kernel makes the rows, in which shape.

use super::defines::Defines;
use super::factors::{PackedFactors, packed_words};
use super::rows::{Operands, Output, RowSource, TransformRows};
use super::sources::{BLOCK, CLUSTER, REFERENCE, ROWWISE, TENSOR, TENSOR_WGMMA};
use crate::{Args, DevicePtr, Element, Function, Gpu, GpuError, Launch};

/// Sizes (n1, n2) that products of warpgroups are used for by themselves: those whose results were
/// checked on a device. The tests ask for other sizes as well.
const WGMMA_SIZES: &[(usize, usize)] = &[(64, 64), (112, 128)];

/// A kernel and its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Plain loops: every size and type.
    Reference,
    /// Without factors, a block of `threads` a row.
    Rowwise {
        /// Threads of a block.
        threads: usize,
        /// Elements of a load.
        load: usize,
    },
    /// On tensor cores.
    Tensor(Tensor),
    /// On tensor cores, a block a row: for few short rows.
    Block {
        /// As [`Tensor::split`].
        split: bool,
    },
    /// On tensor cores, a cluster of blocks a row: for few rows.
    Cluster {
        /// Blocks of a cluster.
        blocks: usize,
        /// As [`Tensor::split`].
        split: bool,
    },
}

/// Shape of tensor.cu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// Tiles of 16 rows of Y that a warp makes.
    pub tiles: usize,
    /// Rows that a block makes at once.
    pub groups: usize,
    /// Blocks that a multiprocessor holds.
    pub resident: usize,
    /// The next row is fetched while one is computed.
    pub prefetch: bool,
    /// X and W have 22 bits instead of 11.
    pub split: bool,
    /// P1 stays in shared memory instead of registers.
    pub p1_shared: bool,
    /// With Hopper's products of warpgroups.
    pub wgmma: bool,
    /// Elements of a load.
    pub load: usize,
}

impl Tensor {
    /// Bytes of shared memory, as tensor.cu counts them.
    fn shared(&self, t: &TransformRows, operands: &Operands) -> usize {
        let (n1p, n2p) = (t.n1.next_multiple_of(16), t.n2.next_multiple_of(16));
        let bytes = t.element.bytes();
        let halves = 1 + usize::from(self.split);
        let factor_bytes = 16 * (1 + usize::from(t.splits_factors(self.split)));
        let p1 = t.factors.p1.filter(|_| self.p1_shared).map_or(0, |_| packed_words(t.n1));
        let pitch = pitch(n2p, self.wgmma);
        let p2_words = if self.wgmma { pitch * n2p / 8 } else { packed_words(t.n2) };
        let p2 = t.factors.p2.map_or(0, |_| p2_words);
        let weight = operands.weight.map_or(0, |_| (t.n() * bytes).next_multiple_of(16));
        let raw = (operands.parts() * t.n() * bytes).next_multiple_of(16);
        let raw = if self.prefetch { raw } else { 0 };
        let x = n1p * pitch * 2 * halves;
        (p1 + p2) * factor_bytes + weight + self.groups * (x + raw + 256)
    }

    fn warps(&self, t: &TransformRows) -> usize {
        let tiles = t.n1.div_ceil(16);
        if self.wgmma { tiles.next_multiple_of(4) } else { tiles.div_ceil(self.tiles) }
    }

    /// Registers that a thread has use for, roughly.
    fn registers(&self, t: &TransformRows) -> usize {
        let (k1, n2p) = (t.n1.div_ceil(16), t.n2.next_multiple_of(16));
        let halves = 1 + usize::from(self.split);
        let p1_halves = 1 + usize::from(t.splits_factors(self.split));
        let p1_steps = if self.p1_shared { 1 } else { k1 };
        let p1 = t.factors.p1.map_or(0, |_| 4 * p1_steps * p1_halves);
        let w = t.factors.p2.map_or(0, |_| n2p / 4 * halves);
        self.tiles * (p1 + w + n2p / 2) + 32
    }

    /// It can run on this device.
    pub(super) fn fits(&self, gpu: &Gpu, t: &TransformRows) -> bool {
        let limit = gpu.properties().shared_memory_per_block as usize;
        // Warps are spread over four schedulers with 512 registers for a lane each.
        let per_scheduler = (self.warps(t) * self.groups * self.resident).div_ceil(4);
        let registers = (self.registers(t).next_multiple_of(8)).min(255);
        (self.shared(t, &t.operands()) + 1024) * self.resident <= limit + 1024
            && per_scheduler * registers <= 512
            && self.warps(t) <= 16
            && self.groups <= 15
            && (!self.wgmma || gpu.properties().has_wgmma() && t.factors.p1.is_some())
    }

    fn launch(&self, gpu: &Gpu, t: &TransformRows) -> Result<(), GpuError> {
        let operands = t.operands();
        let source = if self.wgmma { &TENSOR_WGMMA } else { &TENSOR };
        let kernel = Defines::of(t.element)
            .set("N1", t.n1)
            .set("N2", t.n2)
            .flag("HAS_P1", t.factors.p1.is_some())
            .flag("HAS_P2", t.factors.p2.is_some())
            .set("SOURCE", operands.kind)
            .flag("QUANTISE", t.bits().is_some())
            .flag("SPLIT", self.split)
            .flag("SPLIT_P", t.splits_factors(self.split))
            .flag("P1_SHARED", self.p1_shared)
            .set("MT", self.tiles)
            .set("GROUPS", self.groups)
            .set("RESIDENT", self.resident)
            .set("VEC", self.load)
            .flag("PREFETCH", self.prefetch)
            .flag("WGMMA", self.wgmma)
            .compile(gpu, source, "transform_rows")?;
        let most = gpu.properties().multiprocessors as usize * self.resident;
        let blocks = t.rows.div_ceil(self.groups).min(most);
        let threads = (self.warps(t) * self.groups * 32) as u32;
        let launch = Launch::linear(blocks, threads).with_shared(self.shared(t, &operands));
        t.launch_packed(gpu, &kernel, launch)
    }
}

/// Elements from row to row of X in shared memory, as tiles.cuh has it.
fn pitch(n2p: usize, wgmma: bool) -> usize {
    match wgmma {
        true => n2p.next_multiple_of(64),
        false if n2p.is_multiple_of(64) => n2p,
        false => n2p + 8,
    }
}

/// x, other, weight, sum, stride, epsilon.
fn args(operands: &Operands) -> Args {
    Args::new()
        .ptr(operands.x)
        .optional(operands.other)
        .optional(operands.weight)
        .optional(operands.sum)
        .u64(operands.stride as u64)
        .f32(operands.epsilon)
}

/// clip_min, clip_max, q_max, codes, scales, out.
fn outputs(args: Args, output: Output) -> Args {
    match output {
        Output::Codes { bits, clip_min, clip_max, codes, scales } => args
            .f32(clip_min)
            .f32(clip_max)
            .f32(((1 << (bits - 1)) - 1) as f32)
            .ptr(codes)
            .ptr(scales)
            .ptr(DevicePtr::NULL),
        Output::Values(out) => {
            args.f32(1.0).f32(1.0).f32(1.0).ptr(DevicePtr::NULL).ptr(DevicePtr::NULL).ptr(out)
        }
    }
}

impl TransformRows {
    /// Starts the kernel that is best for the sizes.
    ///
    /// # Errors
    /// [`GpuError::Unsupported`] for sizes or types that no kernel takes.
    pub fn launch(&self, gpu: &Gpu) -> Result<(), GpuError> {
        self.launch_by(gpu, self.method(gpu))
    }

    /// Starts a given kernel, which must suit the sizes.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_by(&self, gpu: &Gpu, method: Method) -> Result<(), GpuError> {
        self.check()?;
        if self.rows == 0 {
            return Ok(());
        }
        match method {
            Method::Reference => self.launch_reference(gpu),
            Method::Rowwise { threads, load } => self.launch_rowwise(gpu, threads, load),
            Method::Tensor(tensor) => tensor.launch(gpu, self),
            Method::Block { split } => self.launch_block(gpu, split),
            Method::Cluster { blocks, split } => self.launch_cluster(gpu, blocks, split),
        }
    }

    /// The kernel that is best for the sizes.
    pub fn method(&self, gpu: &Gpu) -> Method {
        let operands = self.operands();
        if self.factors.are_absent() {
            return match self.output {
                Output::Codes { .. } if self.n() <= 1 << 15 => self.rowwise(&operands),
                _ => Method::Reference,
            };
        }
        let split = self.bits().is_some_and(|bits| bits > 4);
        if self.rows <= 16 && self.suits_block(gpu, split) {
            return Method::Block { split };
        }
        match self.cluster(gpu) {
            Some(blocks) if self.rows * blocks <= 128 => Method::Cluster { blocks, split },
            _ => self.tensor(gpu, &operands).map_or(Method::Reference, Method::Tensor),
        }
    }

    fn rowwise(&self, operands: &Operands) -> Method {
        let load = operands.load(self.n(), 16 / self.element.bytes(), self.element);
        // At most 64 elements a thread.
        let threads = (self.n() / load.max(4)).next_multiple_of(32).clamp(32, 256);
        let threads = if self.n() > 256 * 32 { 512 } else { threads };
        Method::Rowwise { threads, load }
    }

    /// The best shape that fits the device.
    fn tensor(&self, gpu: &Gpu, operands: &Operands) -> Option<Tensor> {
        let load = operands.load(self.n2, 8, self.element);
        if self.element == Element::F32 || load == 1 {
            return None;
        }
        let split = self.bits().is_some_and(|bits| bits > 4);
        let tiles = self.n1.div_ceil(16);
        let wgmma = gpu.properties().has_wgmma()
            && self.factors.p1.is_some()
            && WGMMA_SIZES.contains(&(self.n1, self.n2));
        let shape = |prefetch, wgmma, groups| Tensor {
            tiles: 1,
            groups,
            resident: 1,
            prefetch,
            split,
            p1_shared: tiles > 4 || (split && tiles > 2),
            wgmma,
            load,
        };
        let multiprocessors = gpu.properties().multiprocessors as usize;
        // Each group makes a row at once: few rounds, and no more groups than they need.
        let rounds =
            |shape: &Tensor| (self.rows.div_ceil(multiprocessors * shape.groups), shape.groups);
        let best = |prefetch, wgmma| {
            let shapes =
                [1, 2, 3, 4, 6, 8].into_iter().map(|groups| shape(prefetch, wgmma, groups));
            shapes.filter(|shape| shape.fits(gpu, self)).min_by_key(rounds)
        };
        let kinds = [(true, wgmma), (false, wgmma), (true, false), (false, false)];
        kinds.into_iter().find_map(|(prefetch, wgmma)| best(prefetch, wgmma))
    }

    /// Starts a kernel that takes packed factors.
    fn launch_packed(
        &self,
        gpu: &Gpu,
        kernel: &Function,
        mut launch: Launch,
    ) -> Result<(), GpuError> {
        // Factors are read before the kernel before this one has ended, which must not be the
        // one that packs them.
        launch.overlap = self.factors.packed.is_some();
        let packed = match self.factors.packed {
            Some(_) => None,
            None => Some(PackedFactors::new(gpu, self.n1, self.n2, &self.factors)?),
        };
        let factors = self.factors.packed.or(packed.as_ref().map(PackedFactors::ptr));
        let args = args(&self.operands()).optional(factors).size(self.rows);
        gpu.launch(kernel, launch, &outputs(args, self.output))
    }

    /// Whether the factors have 22 bits too where X has.
    fn splits_factors(&self, split: bool) -> bool {
        split && self.factors.element == Element::F32
    }

    /// Whether a block makes a row faster than a cluster of them: where few products are to be computed.
    pub(super) fn suits_block(&self, gpu: &Gpu, split: bool) -> bool {
        const MOST_PRODUCTS: usize = 640;
        let (m, k2) = (self.n1.div_ceil(16), self.n2.div_ceil(16));
        let second = self.factors.p2.map_or(0, |_| m * k2 * 2 * k2);
        let products = (m * m * 2 * k2 + second) * (1 + 2 * usize::from(split));
        self.factors.p1.is_some()
            && self.n1 <= 128
            && self.n2 <= 256
            && products <= MOST_PRODUCTS
            && self.bits().is_some()
            && !matches!(self.source, RowSource::RmsNorm { add: Some(_), .. })
            && self.element != Element::F32
            && self.operands().load(self.n2, 8, self.element) == 8
            && self.block_shared(split) <= gpu.properties().shared_memory_per_block as usize
    }

    /// Bytes of shared memory, as block.cu counts them.
    fn block_shared(&self, split: bool) -> usize {
        let (n1p, n2p) = (self.n1.next_multiple_of(16), self.n2.next_multiple_of(16));
        let halves = 1 + usize::from(split);
        let right = self.factors.p2.map_or(16, |_| packed_words(self.n2) * 16);
        let right = right * (1 + usize::from(self.splits_factors(split)));
        right + n1p * pitch(n2p, false) * 2 * halves + 256
    }

    /// Warps of a block that share a tile of 16 rows: as many as there are, if all have the same number of
    /// runs of columns (`run_of` in packing.cuh). The second product would need whole rows.
    fn column_warps(&self) -> usize {
        let columns = self.n2.next_multiple_of(16);
        let run = if columns.is_multiple_of(32) { 32 } else { 16 };
        let most = if self.factors.p2.is_some() { 1 } else { 8 / self.n1.div_ceil(16) };
        (1..=most).rev().find(|&warps| (columns / run).is_multiple_of(warps)).unwrap_or(1)
    }

    fn launch_block(&self, gpu: &Gpu, split: bool) -> Result<(), GpuError> {
        let kernel = Defines::of(self.element)
            .set("N1", self.n1)
            .set("N2", self.n2)
            .set("HAS_P1", 1)
            .flag("HAS_P2", self.factors.p2.is_some())
            .set("SOURCE", self.operands().kind)
            .flag("SPLIT", split)
            .flag("SPLIT_P", self.splits_factors(split))
            .set("P1_SHARED", 0)
            .set("MT", 1)
            .set("VEC", 8)
            .set("COLUMN_WARPS", self.column_warps())
            .compile(gpu, &BLOCK, "transform_row")?;
        let launch = Launch::linear(self.rows, 256).with_shared(self.block_shared(split));
        self.launch_packed(gpu, &kernel, launch)
    }

    /// The number of blocks of a cluster, if rows may be spread over one.
    pub(super) fn cluster(&self, gpu: &Gpu) -> Option<usize> {
        let can = gpu.properties().has_wgmma()
            && self.factors.p1.is_some()
            && self.n1 <= 128
            && self.n2.next_multiple_of(16) <= 256
            && self.element != Element::F32
            && self.operands().load(self.n2, 8, self.element) == 8;
        let columns = self.n2.div_ceil(16);
        let limit = gpu.properties().shared_memory_per_block as usize;
        let fits = |blocks: &usize| {
            columns.is_multiple_of(*blocks) && self.cluster_shared(*blocks, true) <= limit
        };
        (2..=8).rev().find(|blocks| can && fits(blocks))
    }

    /// Bytes of shared memory, as cluster.cu counts them.
    fn cluster_shared(&self, blocks: usize, split: bool) -> usize {
        let (n1p, n2p) = (self.n1.next_multiple_of(16), self.n2.next_multiple_of(16));
        let x = (1 + usize::from(split)) * n1p * (n2p / blocks + 8) * 2;
        let w = self.factors.p2.map_or(16, |_| (n1p / 16).div_ceil(blocks) * 16 * (n2p + 8) * 4);
        x + w + 64 + blocks * 72 + 64
    }

    fn launch_cluster(&self, gpu: &Gpu, blocks: usize, split: bool) -> Result<(), GpuError> {
        let kernel = Defines::of(self.element)
            .set("N1", self.n1)
            .set("N2", self.n2)
            .flag("HAS_P2", self.factors.p2.is_some())
            .set("SOURCE", self.operands().kind)
            .flag("QUANTISE", self.bits().is_some())
            .flag("SPLIT", split)
            .flag("SPLIT_P", self.splits_factors(split))
            .set("CLUSTER", blocks)
            .compile(gpu, &CLUSTER, "transform_few_rows")?;
        let shared = self.cluster_shared(blocks, split);
        let launch = Launch::linear(self.rows * blocks, 256).with_shared(shared);
        self.launch_packed(gpu, &kernel, launch)
    }

    fn launch_reference(&self, gpu: &Gpu) -> Result<(), GpuError> {
        let factors = self.factors;
        let largest = factors.p1.map_or(0, |_| self.n1).max(factors.p2.map_or(0, |_| self.n2));
        let shared = self.n() * 4;
        if largest > 512 || shared > gpu.properties().shared_memory_per_block as usize - 512 {
            let sizes = format!("{} · {}", self.n1, self.n2);
            return Err(GpuError::unsupported(format!(
                "rows of {sizes} are too long to transform"
            )));
        }
        let operands = self.operands();
        let kernel = Defines::of(self.element)
            .factors(factors.element)
            .set("SOURCE", operands.kind)
            .compile(gpu, &REFERENCE, "reference_rows")?;
        let args =
            args(&operands).optional(factors.p1).optional(factors.p2).size(self.n1).size(self.n2);
        let launch = Launch::linear(self.rows, 512).with_shared(shared).overlapping();
        gpu.launch(&kernel, launch, &outputs(args, self.output))
    }

    fn launch_rowwise(&self, gpu: &Gpu, threads: usize, load: usize) -> Result<(), GpuError> {
        let operands = self.operands();
        let kernel = Defines::of(self.element)
            .set("SOURCE", operands.kind)
            .set("ROW", self.n())
            .set("VEC", load)
            .set("THREADS", threads)
            .compile(gpu, &ROWWISE, "quantise_rows")?;
        let launch = Launch::linear(self.rows, threads as u32).overlapping();
        gpu.launch(&kernel, launch, &outputs(args(&operands), self.output))
    }
}
