//! Which kernel prepares new positions, and how its launch is laid out.

use super::{KvShape, Prepare, sources};
use crate::{DevicePtr, Element, Properties, Source};

/// Threads of a block that takes rows through shared memory.
const THREADS: usize = 128;
/// Threads of a block that keeps rows in registers, as in prepare_many.cu: three groups of four warps.
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
pub(super) const KINDS: usize = Kind::RegistersByWgmma as usize + 1;

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
    pub fn new(properties: &Properties, shape: &KvShape, what: &Prepare, wgmma: bool) -> Self {
        let rows = RowCounts::new(shape, what);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{CacheFormat, Queries, Rotation, Rows};

    const ROWS: Rows = Rows { at: DevicePtr::NULL, stride: 0 };
    const SHAPE: KvShape = KvShape {
        batch: 1,
        kv_heads: 8,
        head_dim: 128,
        element: Element::F16,
        format: CacheFormat::Element,
    };

    fn properties(shared_memory_per_block: u32) -> Properties {
        Properties {
            name: String::new(),
            major: 9,
            minor: 0,
            multiprocessors: 132,
            shared_memory_per_block,
            l2_bytes: 0,
            total_memory: 0,
        }
    }

    fn rotation(dim: usize, interleaved: bool) -> Rotation {
        let (cos, sin, element) = (DevicePtr::NULL, DevicePtr::NULL, Element::F32);
        Rotation { cos, sin, element, per_sequence: false, dim, interleaved }
    }

    /// With both matrices, and 32 heads of queries.
    fn prepare(new: usize, rotation: Option<Rotation>) -> Prepare {
        let (matrix, past) = (Some(DevicePtr(16)), DevicePtr::NULL);
        Prepare {
            queries: Some(Queries { rows: ROWS, heads: 32, out: DevicePtr::NULL }),
            keys: ROWS,
            values: ROWS,
            rotation,
            query_matrix: matrix,
            key_matrix: matrix,
            past,
            new,
        }
    }

    fn kind(shape: KvShape, what: &Prepare) -> Kind {
        Plan::new(&properties(232_448), &shape, what, true).kind
    }

    #[test]
    fn many_rows_stay_in_registers_where_halves_are_rotated() {
        let halves = |dim| Some(rotation(dim, false));
        let f32 = KvShape { element: Element::F32, ..SHAPE };
        let plain = |what| Prepare { query_matrix: None, key_matrix: None, ..what };
        let heads = |head_dim| KvShape { head_dim, ..SHAPE };
        for (shape, what, expected) in [
            (SHAPE, prepare(64, halves(128)), Kind::FewTiles),
            (SHAPE, prepare(65, halves(128)), Kind::RegistersByWgmma),
            (SHAPE, prepare(65, None), Kind::RegistersByWgmma),
            (SHAPE, plain(prepare(65, halves(128))), Kind::RegistersByWgmma),
            (SHAPE, plain(prepare(64, halves(128))), Kind::Plain),
            (heads(64), prepare(65, halves(64)), Kind::RegistersByWgmma),
            (SHAPE, prepare(65, halves(64)), Kind::Tiles),
            (SHAPE, prepare(65, Some(rotation(128, true))), Kind::Tiles),
            (heads(80), prepare(65, halves(80)), Kind::Tiles),
            (f32, prepare(65, halves(128)), Kind::Plain),
        ] {
            assert_eq!(kind(shape, &what), expected, "{shape:?}, {what:?}");
        }
        let by_mma = Plan::new(&properties(232_448), &SHAPE, &prepare(65, None), false);
        assert_eq!(by_mma.kind, Kind::Registers);
    }

    #[test]
    fn what_does_not_fit_shared_memory_takes_another_way() {
        let what = prepare(2_048, None);
        let kind = |room| Plan::new(&properties(room), &SHAPE, &what, true).kind;
        // Two matrices of 32 KiB, what they are aligned by, and what is declared.
        assert_eq!(kind((65 << 10) + 4_096), Kind::RegistersByWgmma);
        assert_eq!(kind((65 << 10) + 4_095), Kind::Plain);
    }

    #[test]
    fn every_tile_has_a_block_or_a_turn() {
        let plan = |new| Plan::new(&properties(232_448), &SHAPE, &prepare(new, None), true);
        let few = plan(66);
        // 33 tiles of queries, and nine each of keys and values, the last one not full.
        assert_eq!((few.q_share, few.kv_share, few.blocks), (33, 9, 51));
        assert_eq!(plan(2_048).blocks, 132);
    }
}
