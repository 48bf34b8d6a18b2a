//! How a product is spread over the device: measured choices.

use super::problem::Packed;
use crate::{Element, Properties};

/// Inputs that a warp takes at a time.
pub(super) const UNIT: usize = 64;
/// Units that `many_hopper.cu` may have under way, where a warp's share is a multiple of them.
const MANY_UNITS: usize = 16;
/// Columns of one launch at most.
const MAX_COLUMNS: usize = 64;
/// Bytes of 16 sums with what keeps them in banks of their own: as in `few.cu`.
pub(super) const PARTIAL_SUMS: usize = 80;

/// A kernel with what it is compiled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub element: Element,
    /// Activations are floats, not codes.
    pub weight_only: bool,
    pub bits: u32,
    pub group: u32,
    pub shape: Shape,
}

/// Which kernel, and its constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// `few.cu`, with so many blocks a multiprocessor.
    Few { warps: usize, unroll: usize, blocks: usize },
    /// `many.cu`.
    Many(Many),
    /// `many_hopper.cu`.
    Hopper(Hopper),
}

/// The constants of `many.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Many {
    pub columns: usize,
    pub warps_n: usize,
    pub warps_k: usize,
    /// Tiles of 16 outputs a warp.
    pub tiles: usize,
    /// Units of K in shared memory at a time.
    pub chunk: usize,
    pub stages: usize,
    /// Blocks that share K.
    pub cluster: usize,
}

impl Many {
    /// Outputs of a block.
    pub fn outputs(&self) -> usize {
        16 * self.tiles * self.warps_n
    }

    /// Dynamic shared memory.
    fn shared(&self, product: &Packed<'_>) -> usize {
        let stride = self.chunk * UNIT * product.column_bytes() + padding(product);
        let totals = self.columns * (self.outputs() + 4) * 4;
        (self.stages * self.columns * stride).max(totals)
    }
}

/// The constants of `many_hopper.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Hopper {
    pub columns: usize,
    /// Groups of four warps along the outputs.
    pub groups_n: usize,
    /// Groups of four warps that share a block's part of K.
    pub groups_k: usize,
    pub unroll: usize,
    /// Blocks that share K.
    pub cluster: usize,
}

impl Hopper {
    /// Outputs of a block at a time.
    pub fn outputs(&self) -> usize {
        64 * self.groups_n
    }

    /// Blocks that are on the device at once, in clusters: those of one are in one part of the
    /// device, of which each has 16 multiprocessors at least.
    pub fn clusters(&self, multiprocessors: usize) -> usize {
        match self.cluster {
            1 | 2 => multiprocessors / self.cluster,
            cluster => (multiprocessors / 16 * (16 / cluster)).max(1),
        }
    }

    /// Dynamic shared memory: activations, and room for the sums that other blocks send, twice where
    /// more follow.
    fn shared(&self, product: &Packed<'_>, multiprocessors: usize) -> usize {
        let pairs = (product.weights.padded_k / UNIT).div_ceil(self.cluster).div_ceil(2);
        let sets = product.weights.n.div_ceil(self.outputs());
        let inboxes = if sets > self.clusters(multiprocessors) { 2 } else { 1 };
        let inbox = 4 * self.columns * self.outputs() * self.groups_k;
        1024 + self.columns * pairs * 2 * UNIT + inboxes * inbox
    }
}

/// Rows that one launch takes.
pub(super) fn max_rows(product: &Packed<'_>) -> usize {
    MAX_COLUMNS / product.columns_a_row()
}

/// How `rows` rows are multiplied.
pub(super) fn plan(properties: &Properties, product: &Packed<'_>, rows: usize) -> Variant {
    let columns = rows * product.columns_a_row();
    let most = properties.shared_memory_per_block as usize;
    let shape = match few(properties, product, columns) {
        Shape::Few { warps, .. } if columns > 8 || few_shared(product, columns, warps) > most => {
            match hopper(properties, product, columns) {
                Some(shape) => Shape::Hopper(shape),
                None => Shape::Many(many(properties, product, columns)),
            }
        }
        few => few,
    };
    Variant {
        element: product.element,
        weight_only: product.x_scale.is_none(),
        bits: product.weights.bits,
        group: product.group(),
        shape,
    }
}

/// Bytes after a column in shared memory: as in `operands.cuh`.
fn padding(product: &Packed<'_>) -> usize {
    16 * product.column_bytes()
}

/// Activations, and two buffers of sums of 16 outputs a warp.
fn few_shared(product: &Packed<'_>, columns: usize, warps: usize) -> usize {
    let column = product.weights.padded_k * product.column_bytes() + padding(product);
    columns * (column + 2 * warps * PARTIAL_SUMS)
}

/// The constants of `few.cu`. One row asks for so little shared memory and so short an epilogue that
/// small blocks are best, which fill the gaps that others leave; more rows want to be copied to
/// shared memory once a multiprocessor.
fn few(properties: &Properties, product: &Packed<'_>, columns: usize) -> Shape {
    let multiprocessors = properties.multiprocessors as usize;
    let units = product.weights.padded_k / UNIT;
    if product.weights.bits == 8 {
        return Shape::Few { warps: 16, unroll: 2, blocks: if columns > 2 { 1 } else { 2 } };
    }
    let tiles = product.weights.n.div_ceil(16);
    if product.x_scale.is_none() || columns > 2 || units > 128 {
        return Shape::Few { warps: 16, unroll: unroll(units.div_ceil(16)), blocks: 1 };
    }
    match tiles.div_ceil(multiprocessors) {
        ..=3 => Shape::Few { warps: 8, unroll: 8, blocks: 2 },
        _ => Shape::Few { warps: 8, unroll: 8, blocks: 3 },
    }
}

/// How many of a warp's units to have under way: 4 to 8, so that batches are full.
fn unroll(share: usize) -> usize {
    let padded = |unroll: &usize| share.next_multiple_of(*unroll);
    (4..=8).rev().min_by_key(padded).unwrap_or(8).min(share.max(1))
}

/// Kernels that multiply 1 to 64 rows of codes, for measuring and testing each.
pub(super) fn ways(properties: &Properties, product: &Packed<'_>, rows: usize) -> Vec<Shape> {
    let most = properties.shared_memory_per_block as usize;
    let units = product.weights.padded_k / UNIT;
    if rows <= 8 {
        return ways_of_few(product, rows, most);
    }
    let usual = many(properties, product, rows);
    let clusters = if properties.can_overlap() { &[1, 2, 4, 8][..] } else { &[1] };
    let many = clusters.iter().map(|&cluster| Many { cluster, ..usual });
    let many = many.filter(|m| m.shared(product) <= most && units >= m.cluster * m.chunk);
    let mut ways: Vec<Shape> = many.map(Shape::Many).collect();
    if properties.has_wgmma() && product.x_scale.is_some() && product.group() == 0 {
        let columns = rows.next_power_of_two().max(16);
        let multiprocessors = properties.multiprocessors as usize;
        for (groups_n, groups_k) in [(1, 2), (2, 1), (2, 2), (1, 4)] {
            for cluster in [1, 2, 4, 8] {
                let share = units.div_ceil(cluster * groups_k);
                let more = (share.is_multiple_of(MANY_UNITS)).then_some(MANY_UNITS);
                for unroll in [unroll(share)].into_iter().chain(more) {
                    let shape = Hopper { columns, groups_n, groups_k, unroll, cluster };
                    if shape.shared(product, multiprocessors) <= most {
                        ways.push(Shape::Hopper(shape));
                    }
                }
            }
        }
    }
    ways
}

/// Every form of `few.cu` that was worth a try.
fn ways_of_few(product: &Packed<'_>, rows: usize, most: usize) -> Vec<Shape> {
    let fits = |warps: &usize| few_shared(product, rows * product.columns_a_row(), *warps) <= most;
    let mut ways = Vec::new();
    for warps in [4, 8, 16].into_iter().filter(fits) {
        for unroll in [2, 4, 7, 8] {
            for blocks in [1, 2, 3, 4, 6] {
                ways.push(Shape::Few { warps, unroll, blocks });
            }
        }
    }
    ways
}

/// The constants of `many_hopper.cu`, if it takes the product and is the faster: for 16 columns, or where all outputs are
/// under way at once and a warp's share of K is short.
fn hopper(properties: &Properties, product: &Packed<'_>, columns: usize) -> Option<Hopper> {
    if !properties.has_wgmma() || product.x_scale.is_none() || product.group() != 0 {
        return None;
    }
    let multiprocessors = properties.multiprocessors as usize;
    let columns = columns.next_power_of_two().max(16);
    let units = product.weights.padded_k / UNIT;
    let share = |groups_k: usize, cluster: usize| units.div_ceil(cluster * groups_k);
    let shape = |(groups_n, groups_k), cluster| {
        let share = share(groups_k, cluster);
        let unroll = match share.is_multiple_of(MANY_UNITS) && columns == 32 {
            true => MANY_UNITS,
            false => unroll(share),
        };
        Hopper { columns, groups_n, groups_k, unroll, cluster }
    };
    let fits = |shape: &Hopper, rounds: usize| {
        shape.shared(product, multiprocessors) <= properties.shared_memory_per_block as usize
            && (columns == 16 || share(shape.groups_k, shape.cluster) <= MANY_UNITS)
            && product.weights.n.div_ceil(shape.outputs()) * shape.cluster
                <= rounds * multiprocessors
    };
    let in_one_round = |groups| {
        [8, 4, 2, 1].map(|cluster| shape(groups, cluster)).into_iter().find(|shape| fits(shape, 1))
    };
    let in_two_rounds = || Some(shape((1, 4), 1)).filter(|shape| columns == 16 && fits(shape, 2));
    in_one_round((1, 4)).or_else(in_two_rounds).or_else(|| in_one_round((2, 2)))
}

fn many(properties: &Properties, product: &Packed<'_>, columns: usize) -> Many {
    let columns = columns.next_power_of_two().clamp(8, MAX_COLUMNS);
    // Unpacked to floats, weights of two tiles leave no registers for so many sums.
    let tiles = if product.column_bytes() == 2 && columns == MAX_COLUMNS { 1 } else { 2 };
    let mut many = Many { columns, warps_n: 8, warps_k: 1, tiles, chunk: 4, stages: 3, cluster: 1 };
    if many.shared(product) > properties.shared_memory_per_block as usize {
        many.stages = 2;
    }
    if properties.can_overlap() {
        let blocks = product.weights.n.div_ceil(many.outputs());
        let units = product.weights.padded_k / UNIT;
        // Two blocks of codes share a multiprocessor.
        let together = if product.x_scale.is_some() { 2 } else { 1 };
        while many.cluster < 8
            && blocks * many.cluster * 2 <= properties.multiprocessors as usize * together
            && units >= many.cluster * 2 * many.chunk
        {
            many.cluster *= 2;
        }
    }
    many
}

impl Variant {
    /// Dynamic shared memory of a launch.
    pub fn shared(&self, product: &Packed<'_>, rows: usize, multiprocessors: usize) -> usize {
        match self.shape {
            Shape::Few { warps, .. } => few_shared(product, rows * product.columns_a_row(), warps),
            Shape::Many(many) => many.shared(product),
            Shape::Hopper(shape) => shape.shared(product, multiprocessors),
        }
    }

    /// The constants, by name.
    pub fn defines(&self) -> Vec<(&'static str, String)> {
        let (name, element) = self.element.define();
        let mut defines = vec![
            (name, element.to_owned()),
            ("WEIGHT_ONLY", u32::from(self.weight_only).to_string()),
            ("BITS", self.bits.to_string()),
            ("GROUP", self.group.to_string()),
        ];
        let mut add = |name, value: usize| defines.push((name, value.to_string()));
        match self.shape {
            Shape::Few { warps, unroll, .. } => {
                add("WARPS", warps);
                add("UNROLL", unroll);
            }
            Shape::Many(many) => {
                add("COLUMNS", many.columns);
                add("WARPS_N", many.warps_n);
                add("WARPS_K", many.warps_k);
                add("TILES", many.tiles);
                add("CHUNK", many.chunk);
                add("STAGES", many.stages);
                add("CLUSTER", many.cluster);
            }
            Shape::Hopper(shape) => {
                add("COPY_WEIGHTS", usize::from(self.bits == 8));
                add("COLUMNS", shape.columns);
                add("GROUPS_N", shape.groups_n);
                add("GROUPS_K", shape.groups_k);
                add("UNROLL", shape.unroll);
                add("CLUSTER", shape.cluster);
            }
        }
        defines
    }
}
