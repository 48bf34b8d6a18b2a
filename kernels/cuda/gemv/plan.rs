//! How a product is spread over the device: measured choices.

use super::problem::Packed;
use crate::{Element, Properties};

/// Inputs that a warp takes at a time.
pub(super) const UNIT: usize = 64;
/// Columns of one launch at most.
const MAX_COLUMNS: usize = 64;
/// Shared memory up to which `few.cu` takes activations: two blocks fit a multiprocessor.
const FEW_SHARED: usize = 100 << 10;

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
    /// `few.cu`.
    Few { warps: usize, unroll: usize },
    /// `many.cu`.
    Many(Many),
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
}

/// Rows that one launch takes.
pub(super) fn max_rows(product: &Packed<'_>) -> usize {
    MAX_COLUMNS / product.columns_a_row()
}

/// How `rows` rows are multiplied.
pub(super) fn plan(properties: &Properties, product: &Packed<'_>, rows: usize) -> Variant {
    let columns = rows * product.columns_a_row();
    let shape = if columns <= 8 && few_shared(product, columns) <= FEW_SHARED {
        few(product)
    } else {
        Shape::Many(many(properties, product, columns))
    };
    Variant {
        element: product.element,
        weight_only: product.x_scale.is_none(),
        bits: product.weights.bits,
        group: product.group(),
        shape,
    }
}

/// Bytes after a column in shared memory: as in `multiply.cuh`.
fn padding(product: &Packed<'_>) -> usize {
    16 * product.column_bytes()
}

fn few_shared(product: &Packed<'_>, columns: usize) -> usize {
    columns * (product.weights.padded_k * product.column_bytes() + padding(product))
}

fn few(product: &Packed<'_>) -> Shape {
    if product.weights.bits == 4 {
        Shape::Few { warps: 8, unroll: 8 }
    } else {
        Shape::Few { warps: 8, unroll: 4 }
    }
}

fn many(properties: &Properties, product: &Packed<'_>, columns: usize) -> Many {
    let columns = columns.next_power_of_two().clamp(8, MAX_COLUMNS);
    // Floats are two bytes, and unpacked weights fill more registers.
    let chunk = if product.column_bytes() == 2 { 4 } else { 8 };
    let tiles = if product.column_bytes() == 2 && columns == MAX_COLUMNS { 1 } else { 2 };
    let mut many = Many { columns, warps_n: 4, warps_k: 2, tiles, chunk, stages: 3, cluster: 1 };
    if properties.can_overlap() {
        let blocks = product.weights.n.div_ceil(many.outputs());
        let units = product.weights.padded_k / UNIT;
        let most = 2 * properties.multiprocessors as usize;
        while many.cluster < 8
            && blocks * many.cluster * 2 <= most
            && units >= many.cluster * 2 * chunk
        {
            many.cluster *= 2;
        }
    }
    many
}

impl Variant {
    /// Dynamic shared memory of a launch.
    pub fn shared(&self, product: &Packed<'_>, rows: usize) -> usize {
        match self.shape {
            Shape::Few { .. } => few_shared(product, rows * product.columns_a_row()),
            Shape::Many(many) => {
                let stride = many.chunk * UNIT * product.column_bytes() + padding(product);
                let totals = many.columns * (many.outputs() + 4) * 4;
                (many.stages * many.columns * stride).max(totals)
            }
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
            Shape::Few { warps, unroll } => {
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
        }
        defines
    }
}
