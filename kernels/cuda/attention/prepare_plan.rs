//! Which kernel prepares new positions, and how its launch is laid out.

use super::{KvShape, Prepare, sources};
use crate::{DevicePtr, Element, Gpu, Source};

/// Threads of a block that takes rows through shared memory.
const THREADS: usize = 128;
/// Threads of a block that keeps rows in registers: three groups of four warps.
const REGISTER_THREADS: u32 = 384;
/// Rows of a tile where there are many: also those that four warps take in registers.
const TILE_ROWS: usize = 64;
/// Rows of a tile where there are few.
const FEW_TILE_ROWS: usize = 16;
/// Rows of queries that are few.
const FEW_ROWS: usize = 2_048;
/// Shared memory that kernels have besides.
const DECLARED: usize = 4_096;

/// How many kinds of kernels there are.
pub(super) const KINDS: usize = 5;

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Without tensor cores.
    Plain,
    /// Tiles of many rows through shared memory.
    Tiles,
    /// Tiles of few rows, whose columns warps share.
    FewTiles,
    /// Rows in registers.
    Registers,
    /// The same, with Hopper's products.
    RegistersByWgmma,
}

impl Kind {
    /// Source, entry, and what it is compiled for.
    pub fn kernel(self) -> (&'static Source, &'static str, (&'static str, &'static str)) {
        match self {
            Self::Plain => (&sources::PREPARE, "prepare", ("COLUMN_WARPS", "1")),
            Self::Tiles => (&sources::PREPARE, "prepare_transformed", ("COLUMN_WARPS", "1")),
            Self::FewTiles => (&sources::PREPARE, "prepare_transformed", ("COLUMN_WARPS", "4")),
            Self::Registers => (&sources::PREPARE_MANY, "prepare_many", ("WGMMA", "0")),
            Self::RegistersByWgmma => {
                (&sources::PREPARE_MANY_HOPPER, "prepare_many", sources::BY_WGMMA)
            }
        }
    }

    /// Threads of a block.
    pub fn threads(self) -> u32 {
        match self {
            Self::Registers | Self::RegistersByWgmma => REGISTER_THREADS,
            _ => THREADS as u32,
        }
    }
}

/// How a launch is laid out. The rows of each kind are shared out by themselves: among blocks, the
/// first of which take queries, the next keys and the others values; in registers in tiles, among
/// all groups of four warps, which take keys first, then queries, then values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub kind: Kind,
    pub blocks: usize,
    /// Blocks or tiles of queries.
    pub q_share: usize,
    /// Blocks of keys; tiles of keys, and as many of values.
    pub kv_share: usize,
    /// Dynamic bytes of shared memory.
    pub shared: usize,
}

impl Plan {
    /// The kernel that should be fastest; `wgmma` allows Hopper's products.
    pub fn new(gpu: &Gpu, shape: &KvShape, what: &Prepare, wgmma: bool) -> Self {
        let rows = RowCounts::new(shape, what);
        let properties = gpu.properties();
        let tensor_cores = shape.element != Element::F32;
        let has_matrix = what.query_matrix.is_some() || what.key_matrix.is_some();
        let in_registers = (tensor_cores && rows.are_many() && is_by_halves(shape, what))
            .then(|| Self::in_registers(&rows, what, wgmma, properties.multiprocessors as usize));
        let in_tiles = (tensor_cores && has_matrix).then(|| Self::in_tiles(&rows, what));
        let room = properties.shared_memory_per_block as usize;
        [in_registers, in_tiles]
            .into_iter()
            .flatten()
            .find(|plan| plan.shared + DECLARED <= room)
            .unwrap_or_else(|| Self::plain(&rows))
    }

    fn plain(rows: &RowCounts) -> Self {
        let q_share = rows.queries.div_ceil(rows.at_once());
        let kv_share = rows.keys.div_ceil(rows.at_once());
        Self { kind: Kind::Plain, blocks: q_share + 2 * kv_share, q_share, kv_share, shared: 0 }
    }

    fn in_tiles(rows: &RowCounts, what: &Prepare) -> Self {
        // A block of many rows takes two tiles of queries, so that the matrix is read less often.
        let (kind, tile, q_tiles) = match rows.are_many() {
            true => (Kind::Tiles, TILE_ROWS, 2),
            false => (Kind::FewTiles, FEW_TILE_ROWS, 1),
        };
        let padded = rows.head_dim.next_multiple_of(16);
        let shared = (2 * tile + padded) * (2 * padded + 16);
        let step = rows.at_once() * (tile / rows.at_once()).max(1);
        let share = |rows: usize, matrix: Option<DevicePtr>, n| match matrix {
            None => rows.div_ceil(step),
            Some(_) => rows.div_ceil(n * tile),
        };
        let q_share = share(rows.queries, what.query_matrix, q_tiles);
        let kv_share = share(rows.keys, what.key_matrix, 1);
        let blocks = q_share + kv_share + rows.keys.div_ceil(step);
        Self { kind, blocks, q_share, kv_share, shared }
    }

    fn in_registers(rows: &RowCounts, what: &Prepare, wgmma: bool, processors: usize) -> Self {
        let kind = if wgmma { Kind::RegistersByWgmma } else { Kind::Registers };
        let q_share = rows.queries.div_ceil(TILE_ROWS);
        let kv_share = rows.keys.div_ceil(TILE_ROWS);
        let blocks = (q_share + 2 * kv_share).min(processors);
        let matrices = [what.query_matrix, what.key_matrix].into_iter().flatten().count();
        // They begin at a multiple of 1,024 bytes.
        let shared = matrices * rows.head_dim * rows.head_dim * 2 + 1_024;
        Self { kind, blocks, q_share, kv_share, shared }
    }
}

/// Whether heads and their rotation are as prepare_many.cu takes them.
fn is_by_halves(shape: &KvShape, what: &Prepare) -> bool {
    let rotated = what.rotation.is_none_or(|r| r.dim == shape.head_dim && !r.interleaved);
    rotated && [64, 128].contains(&shape.head_dim)
}

/// Rows that a launch prepares, a row being one head at one position.
struct RowCounts {
    queries: usize,
    /// And as many values.
    keys: usize,
    head_dim: usize,
}

impl RowCounts {
    fn new(shape: &KvShape, what: &Prepare) -> Self {
        let tokens = shape.batch * what.new;
        Self {
            queries: tokens * what.queries.map_or(0, |q| q.heads),
            keys: tokens * shape.kv_heads,
            head_dim: shape.head_dim,
        }
    }

    fn are_many(&self) -> bool {
        self.queries.max(self.keys) > FEW_ROWS
    }

    /// Rows that a block has lanes for.
    fn at_once(&self) -> usize {
        THREADS / (self.head_dim / 8).next_power_of_two()
    }
}
