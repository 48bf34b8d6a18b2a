//! Attention over the cache.

use super::cache::{TILES, held};
use super::{KvCache, Rows, int, launch_size, sources};
use crate::{Args, DeviceBuffer, DevicePtr, Element, Function, Gpu, GpuError, Launch};

/// New positions up to which the context, and not the queries, is split among blocks.
pub(super) const FEW: usize = 8;
/// Rows of the queries that a block of decoding takes.
pub(super) const ROWS: usize = 16;
/// Tokens that a warp of decoding takes at a time.
const GROUP: usize = 16;
/// Blocks of a cluster, as `sources::CLUSTER` has it.
const CLUSTER: usize = 8;
/// Positions up to which a cluster is faster than more blocks.
const CLUSTER_BOUND: usize = 4_096;
/// Parts of the context; their weights fit into the shared memory that their sum leaves.
const MOST_PARTS: usize = 128;
/// Bytes of 16-bit keys and values up to which a cache of codes is unpacked before prefill.
const EXPAND_BYTES: usize = 256 << 20;

/// Which keys are no padding: bool `[batch, total]`.
#[derive(Debug, Clone, Copy)]
pub struct PadMask {
    /// First element.
    pub at: DevicePtr,
    /// Elements from one sequence to the next; 0 where it is the total on the device.
    pub stride: usize,
}

/// One call of attention.
#[derive(Debug, Clone, Copy)]
pub struct Attend {
    /// Queries `[batch, new, q_heads · head_dim]`.
    pub queries: Rows,
    /// Query heads, a multiple of the cache's heads.
    pub q_heads: usize,
    /// i32 on the device: positions in the cache before the new ones, which are there as well.
    pub past: DevicePtr,
    /// New positions.
    pub new: usize,
    /// Upper bound of past + new, at most the capacity.
    pub total_bound: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Scores become softcap · tanh(score / softcap); 0 for none.
    pub softcap: f32,
    /// Keys after the query are hidden.
    pub causal: bool,
    /// Keys that a query sees, itself included; 0 for all.
    pub window: usize,
    /// Padding.
    pub pad_mask: Option<PadMask>,
    /// Output `[batch, new, q_heads · head_dim]`, without gaps.
    pub out: DevicePtr,
}

impl KvCache {
    /// Attention of the new positions over all of the cache. A query that sees no key gives zeros.
    ///
    /// # Errors
    /// If sizes do not go together.
    pub fn attend(&self, gpu: &Gpu, what: &Attend) -> Result<(), GpuError> {
        if what.new == 0 {
            return Ok(());
        }
        self.check_attend(what)?;
        match (self.shape().element, what.new) {
            (Element::F32, new) if new > FEW => self.prefill_f32(gpu, what),
            (Element::F32, _) => self.attend_plainly(gpu, what),
            (_, new) if new <= FEW => self.decode(gpu, what),
            _ => self.prefill(gpu, what),
        }
    }

    /// The same by the plain kernel, whatever the sizes.
    ///
    /// # Errors
    /// As [`KvCache::attend`].
    pub fn attend_plainly(&self, gpu: &Gpu, what: &Attend) -> Result<(), GpuError> {
        self.check_attend(what)?;
        let f =
            held(&self.kernels.naive, || self.function(gpu, &sources::NAIVE, "attend_naive", &[]))?;
        let grid = [what.new, what.q_heads, self.shape().batch];
        let args = self.arguments(what, None)?.ptr(what.out);
        gpu.launch(f, launch(grid, 128, 0)?, &args)
    }

    fn prefill_f32(&self, gpu: &Gpu, what: &Attend) -> Result<(), GpuError> {
        let shape = self.shape();
        let tile = if shape.head_dim <= 128 { 32 } else { 16 };
        let f = held(&self.kernels.prefill, || {
            let more = [("TILE", if tile == 32 { "32" } else { "16" })];
            self.function(gpu, &sources::PREFILL_F32, "attend_prefill_f32", &more)
        })?;
        let shared = (3 * tile * (shape.head_dim + 1) + tile * (tile + 1)) * 4;
        let grid = [what.new.div_ceil(tile), what.q_heads, shape.batch];
        let args = self.arguments(what, None)?.ptr(what.out);
        gpu.launch(f, launch(grid, tile / 2 * 16, shared)?, &args)
    }

    fn check_attend(&self, what: &Attend) -> Result<(), GpuError> {
        let shape = self.shape();
        what.queries.check("queries", what.q_heads * shape.head_dim)?;
        if what.q_heads == 0 || !what.q_heads.is_multiple_of(shape.kv_heads) {
            return Err(GpuError::unsupported(format!(
                "{} query heads are no multiple of {} key heads",
                what.q_heads, shape.kv_heads
            )));
        }
        if what.total_bound > self.capacity() || what.new > what.total_bound {
            return Err(GpuError::unsupported(format!(
                "{} new of up to {} positions in a cache for {}",
                what.new,
                what.total_bound,
                self.capacity()
            )));
        }
        Ok(())
    }

    /// What all kernels take first. `wide` is an unpacked cache, for `total_bound` positions.
    fn arguments(&self, what: &Attend, wide: Option<&[DeviceBuffer; 2]>) -> Result<Args, GpuError> {
        let shape = self.shape();
        let mut args = Args::new().ptr(what.queries.at).i32(int(what.queries.stride)?);
        args = match wide {
            Some([keys, values]) => args.ptr(keys.ptr()).ptr(values.ptr()),
            None => args.ptr(self.stores[0].rows.ptr()).ptr(self.stores[1].rows.ptr()),
        };
        for store in &self.stores {
            args = args.optional(store.parameters());
        }
        let capacity = if wide.is_some() { what.total_bound } else { self.capacity() };
        args = args.ptr(what.past).i32(int(what.new)?).i32(int(what.q_heads)?);
        args = args.i32(int(shape.kv_heads)?).i32(int(capacity)?);
        args = args.f32(what.scale).f32(what.softcap).i32(what.causal.into());
        args = args.i32(int(what.window)?).optional(what.pad_mask.map(|mask| mask.at));
        Ok(args.i32(int(what.pad_mask.map_or(0, |mask| mask.stride))?))
    }

    fn decode(&self, gpu: &Gpu, what: &Attend) -> Result<(), GpuError> {
        self.decode_in(gpu, what, wants_clusters(what))
    }

    /// The parts of the context in clusters, where that is wanted and possible.
    pub(super) fn decode_in(
        &self,
        gpu: &Gpu,
        what: &Attend,
        clusters: bool,
    ) -> Result<(), GpuError> {
        let plan = self.decode_plan(gpu, what, clusters)?;
        let f = self.decode_kernel(gpu, &plan)?;
        self.launch_decode(gpu, what, &plan, f, plan.shared, Ok)
    }

    /// How decoding is laid out; the parts of the context in clusters, where that is wanted and
    /// possible.
    pub(super) fn decode_plan(
        &self,
        gpu: &Gpu,
        what: &Attend,
        clusters: bool,
    ) -> Result<DecodePlan, GpuError> {
        self.check_attend(what)?;
        let shape = self.shape();
        let warps = if shape.head_dim <= 128 { 8 } else { 4 };
        let rows = what.q_heads / shape.kv_heads * what.new;
        let tiles = rows.div_ceil(ROWS);
        if tiles > TILES {
            return Err(GpuError::unsupported(format!(
                "{rows} rows of queries share a key head; {} are possible",
                TILES * ROWS
            )));
        }
        let units = shape.kv_heads * tiles * shape.batch;
        let most = what.total_bound.div_ceil(GROUP * warps).clamp(1, MOST_PARTS);
        let places = gpu.properties().multiprocessors as usize / units;
        let is_new = gpu.properties().major >= 9;
        let clusters = clusters && is_new && places >= CLUSTER && most > 1;
        let parts = if clusters { CLUSTER } else { places.clamp(1, most) };
        let line = shape.head_dim.next_multiple_of(32) * 4;
        let shared = warps * rows.min(ROWS) * line;
        Ok(DecodePlan { clusters, warps, rows, tiles, parts, shared })
    }

    /// Launches a kernel of decoding with `shared` bytes; `more` adds to the arguments.
    pub(super) fn launch_decode(
        &self,
        gpu: &Gpu,
        what: &Attend,
        plan: &DecodePlan,
        f: &Function,
        shared: usize,
        more: impl FnOnce(Args) -> Result<Args, GpuError>,
    ) -> Result<(), GpuError> {
        let shape = self.shape();
        let grid = [plan.parts, shape.kv_heads * plan.tiles, shape.batch];
        let blocks = grid.iter().product::<usize>();
        let partial = gpu.alloc(blocks * ROWS * shape.head_dim * 4)?;
        let weights = gpu.alloc(blocks * ROWS * 8)?;
        let args = self.arguments(what, None)?.ptr(partial.ptr()).ptr(weights.ptr());
        let args = more(args.ptr(self.arrived.ptr()).ptr(what.out))?;
        gpu.launch(f, launch(grid, 32 * plan.warps, shared)?, &args)
    }

    fn decode_kernel(&self, gpu: &Gpu, plan: &DecodePlan) -> Result<&Function, GpuError> {
        let warps = plan.warps_define();
        let slot = usize::from(plan.is_half());
        match plan.clusters {
            true => held(&self.kernels.decode_in_clusters[slot], || {
                let more = [warps, plan.halves_define(), sources::CLUSTER];
                self.function(gpu, &sources::DECODE_IN_CLUSTERS, "attend_decode", &more)
            }),
            false => held(&self.kernels.decode[slot], || {
                let more = [warps, plan.halves_define()];
                self.function(gpu, &sources::DECODE, "attend_decode", &more)
            }),
        }
    }

    fn prefill(&self, gpu: &Gpu, what: &Attend) -> Result<(), GpuError> {
        let shape = self.shape();
        let wide_bytes = shape.batch * shape.kv_heads * what.total_bound * shape.head_dim * 2;
        if shape.format.has_codes() && 2 * wide_bytes <= EXPAND_BYTES {
            let wide = [gpu.alloc(wide_bytes)?, gpu.alloc(wide_bytes)?];
            self.expand(gpu, what, &wide)?;
            return self.prefill_over(gpu, what, Some(&wide));
        }
        self.prefill_over(gpu, what, None)
    }

    /// Prefill over a cache of elements or an unpacked one, or over codes.
    fn prefill_over(
        &self,
        gpu: &Gpu,
        what: &Attend,
        wide: Option<&[DeviceBuffer; 2]>,
    ) -> Result<(), GpuError> {
        let has_elements = wide.is_some() || !self.shape().format.has_codes();
        let is_usual = [64, 128].contains(&self.shape().head_dim);
        match gpu.properties().has_wgmma() && has_elements && is_usual {
            true => self.prefill_on_hopper(gpu, what, wide),
            false => self.prefill_by_tiles(gpu, what, wide),
        }
    }

    fn prefill_on_hopper(
        &self,
        gpu: &Gpu,
        what: &Attend,
        wide: Option<&[DeviceBuffer; 2]>,
    ) -> Result<(), GpuError> {
        let shape = self.shape();
        let f = held(&self.kernels.prefill_hopper, || {
            self.function_for(gpu, &sources::PREFILL_HOPPER, "attend_prefill_hopper", "16", &[])
        })?;
        let (rows, stages) = (128, 2);
        let tile = rows * shape.head_dim * 2;
        let shared = 2 * tile + 2 * stages * tile + 1_024;
        let items = what.new.div_ceil(rows) * what.q_heads * shape.batch;
        let blocks = items.min(gpu.properties().multiprocessors as usize);
        let args = self.arguments(what, wide)?.ptr(what.out).i32(int(shape.batch)?);
        gpu.launch(f, launch([blocks, 1, 1], 384, shared)?, &args)
    }

    /// Unpacks the cache's codes to 16 bits.
    fn expand(
        &self,
        gpu: &Gpu,
        what: &Attend,
        [keys, values]: &[DeviceBuffer; 2],
    ) -> Result<(), GpuError> {
        let shape = self.shape();
        let f = held(&self.kernels.expand, || {
            self.function(gpu, &sources::PREFILL, "expand", &[key_rows(shape.head_dim)])
        })?;
        let mut args = Args::new().ptr(self.stores[0].rows.ptr()).ptr(self.stores[1].rows.ptr());
        for store in &self.stores {
            args = args.optional(store.parameters());
        }
        args = args.ptr(what.past).i32(int(what.new)?).i32(int(shape.kv_heads)?);
        args = args.i32(int(self.capacity())?).i32(int(what.total_bound)?);
        args = args.ptr(keys.ptr()).ptr(values.ptr());
        let blocks = (what.total_bound * shape.head_dim / 8).div_ceil(256);
        gpu.launch(f, launch([blocks, shape.kv_heads, shape.batch], 256, 0)?, &args)
    }

    /// The version for all architectures.
    pub(super) fn prefill_by_tiles(
        &self,
        gpu: &Gpu,
        what: &Attend,
        wide: Option<&[DeviceBuffer; 2]>,
    ) -> Result<(), GpuError> {
        let shape = self.shape();
        let bits = if wide.is_some() { 16 } else { shape.format.bits(shape.element) };
        let slot = if wide.is_some() { &self.kernels.prefill_wide } else { &self.kernels.prefill };
        let key_rows = key_rows(shape.head_dim);
        let f = held(slot, || {
            let bits = bits.to_string();
            self.function_for(gpu, &sources::PREFILL, "attend_prefill", &bits, &[key_rows])
        })?;
        let (q_rows, k_rows) = if shape.head_dim <= 128 { (128, 64) } else { (64, 32) };
        let pitch = 2 * shape.head_dim.next_multiple_of(16) + 16;
        let raw = match bits {
            16 => 0,
            _ => k_rows * (shape.row_bytes().next_multiple_of(16) + 8),
        };
        let shared = q_rows * pitch + 2 * k_rows * pitch + 2 * raw;
        let grid = [what.new.div_ceil(q_rows), what.q_heads, shape.batch];
        gpu.launch(f, launch(grid, 128, shared)?, &self.arguments(what, wide)?.ptr(what.out))
    }
}

/// How a launch of decoding is laid out.
pub(super) struct DecodePlan {
    /// The parts of the context are a cluster.
    pub clusters: bool,
    /// Warps of a block.
    pub warps: usize,
    /// Rows of queries that share a key head.
    pub rows: usize,
    tiles: usize,
    parts: usize,
    /// Bytes of shared memory for the outputs.
    pub shared: usize,
}

impl DecodePlan {
    pub fn warps_define(&self) -> (&'static str, &'static str) {
        ("WARPS", if self.warps == 8 { "8" } else { "4" })
    }

    /// Half a tile has room for the rows.
    pub fn is_half(&self) -> bool {
        self.rows <= ROWS / 2
    }

    pub fn halves_define(&self) -> (&'static str, &'static str) {
        ("HALVES", if self.is_half() { "1" } else { "2" })
    }
}

/// Whether a cluster is the faster way.
pub(super) fn wants_clusters(what: &Attend) -> bool {
    what.total_bound <= CLUSTER_BOUND
}

/// Rows of a tile of keys.
fn key_rows(head_dim: usize) -> (&'static str, &'static str) {
    ("KEY_ROWS", if head_dim <= 128 { "64" } else { "32" })
}

fn launch(grid: [usize; 3], threads: usize, shared: usize) -> Result<Launch, GpuError> {
    let [x, y, z] = grid;
    if y.max(z) > 65_535 {
        return Err(GpuError::unsupported(format!("{y} heads of {z} sequences are too many")));
    }
    let grid = [launch_size(x)?, launch_size(y)?, launch_size(z)?];
    let block = [launch_size(threads)?, 1, 1];
    Ok(Launch { grid, block, shared: launch_size(shared)?, overlap: true })
}
