//! How Hopper's kernel, wgmma.cu, cuts a product.

use super::problem::{Part, WeightOnlyGemm};
use super::tensor_map::{Matrix, TensorMap};
use crate::{DevicePtr, Gpu, GpuError, Properties};

/// Bytes of K in a stage.
const STAGE_K: usize = 128;
/// Outputs that the copy engine writes at once, 128 bytes of them.
const BOX_OUTPUTS: usize = 64;
/// Shared memory that is neither stages nor results: barriers, scales, alignment.
const REST: usize = 3072;

/// Tiles of Hopper's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tiling {
    /// Rows of a tile, 64 or 128.
    pub rows: usize,
    /// Blocks of 64 outputs of a warpgroup, 1 or 2; a tile has twice as many.
    pub blocks: usize,
    /// Tiles along the outputs that a band of tiles has.
    pub band: usize,
    /// Blocks of threads that share a tile's inputs: 1, or 2 or 4 where there are few tiles.
    pub split: usize,
}

/// A product's size, for the choice of tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub rows: usize,
    pub k: usize,
    pub n: usize,
    pub floats: bool,
    /// With scales of groups.
    pub grouped: bool,
}

impl Tiling {
    const fn new(rows: usize, blocks: usize, split: usize) -> Self {
        Self { rows, blocks, band: 8, split }
    }

    /// What to choose from, with the share of the largest tile's rate that each reaches.
    const CHOICES: [(Self, f64); 4] = [
        (Self::new(128, 2, 1), 1.0),
        (Self::new(128, 1, 1), 0.85),
        (Self::new(64, 1, 1), 0.55),
        (Self::new(64, 1, 2), 0.55),
    ];

    /// The tiles that should finish first.
    pub(super) fn choose(size: Size, multiprocessors: usize) -> Self {
        let fits = |tiling: &Self| {
            // Groups need room for a second set of sums, and are not shared out.
            let fits_groups = !size.grouped || (tiling.blocks, tiling.split) == (1, 1);
            // What passes through the stages in a split must fit there.
            let fits_stages = !(size.floats && tiling.split == 4 && tiling.rows == 128);
            let blocks = tiling.count(size.rows, size.n) * tiling.split;
            let fits_split = tiling.split == 1
                || blocks <= multiprocessors && size.k >= 4 * STAGE_K * tiling.split;
            fits_groups && fits_stages && fits_split
        };
        let choices = Self::CHOICES.iter().filter(|(tiling, _)| fits(tiling));
        let times = choices.map(|(t, rate)| (t.microseconds(size, multiprocessors) / rate, *t));
        times.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(Self::new(128, 1, 1), |(_, tiling)| tiling)
    }

    /// A guess from an H200: waves of tiles, each so many steps and an end.
    fn microseconds(&self, size: Size, multiprocessors: usize) -> f64 {
        let share = (self.rows * self.outputs()) as f64 / (128 * 256) as f64;
        let stage = if size.floats { STAGE_K / 2 } else { STAGE_K };
        let steps = size.k.div_ceil(stage).div_ceil(self.split) as f64;
        let blocks = self.count(size.rows, size.n) * self.split;
        let waves = blocks.div_ceil(multiprocessors.max(1)) as f64;
        let gather = if self.split > 1 { 1.5 } else { 0.0 };
        waves * share * (0.57 * steps + 2.4) + gather
    }

    /// Outputs of a tile.
    pub fn outputs(&self) -> usize {
        128 * self.blocks
    }

    fn count(&self, rows: usize, n: usize) -> usize {
        rows.div_ceil(self.rows) * n.div_ceil(self.outputs())
    }

    /// Blocks of threads: as many as are resident, or those of one cluster a tile.
    pub(super) fn grid(&self, rows: usize, n: usize, properties: &Properties) -> usize {
        let tiles = self.count(rows, n);
        if self.split > 1 {
            return tiles * self.split;
        }
        tiles.clamp(1, properties.multiprocessors as usize)
    }
}

/// Inputs that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Groups {
    /// All.
    None,
    /// Half a stage.
    Half,
    /// Whole stages.
    Stages,
}

impl Groups {
    /// How the kernel takes blocks of inputs; `None` if it does not.
    pub fn of(block_size: usize, floats: bool) -> Option<Self> {
        let stage = if floats { STAGE_K / 2 } else { STAGE_K };
        match block_size {
            0 => Some(Self::None),
            size if size == stage / 2 => Some(Self::Half),
            size if size.is_multiple_of(stage) => Some(Self::Stages),
            _ => None,
        }
    }
}

/// What the kernel is compiled for besides types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub tiling: Tiling,
    pub bits: u32,
    /// Activations are floats, not codes.
    pub floats: bool,
    pub groups: Groups,
    /// The copy engine writes the output.
    pub bulk: bool,
    /// Outputs, of which the first is that of `maps`.
    pub parts: usize,
}

impl Form {
    /// Inputs of a stage.
    fn tile_k(&self) -> usize {
        if self.floats { STAGE_K / 2 } else { STAGE_K }
    }

    fn stage_bytes(&self) -> usize {
        self.tiling.outputs() * self.tile_k() * self.bits as usize / 8 + self.tiling.rows * STAGE_K
    }

    fn result_bytes(&self) -> usize {
        if self.bulk { self.tiling.rows * self.tiling.outputs() * 2 } else { 0 }
    }

    /// Stages that fit into a block's shared memory.
    pub fn stages(&self, shared: usize) -> usize {
        (shared.saturating_sub(self.result_bytes() + REST) / self.stage_bytes()).clamp(2, 8)
    }

    /// Whether the kernel is there, and a split tile's sums fit into the stages they pass through.
    pub fn is_possible(&self, stages: usize, k: usize) -> bool {
        let Tiling { rows, blocks, split, .. } = self.tiling;
        let gathered = (split - 1) * 2 * 256 * blocks * rows;
        let is_split = split > 1;
        let is_grouped = self.groups != Groups::None;
        gathered <= stages * self.stage_bytes()
            && !(is_split && is_grouped)
            && !(is_split && k < split * self.tile_k())
            && !(is_grouped && blocks > 1)
            && (self.parts == 1 || self.bulk)
    }

    /// Dynamic bytes of shared memory, with room to align the stages.
    pub fn shared(&self, stages: usize) -> usize {
        stages * self.stage_bytes() + self.result_bytes() + 1024
    }

    /// Maps of the weights, the activations, the output and the residual.
    pub fn maps(&self, gpu: &Gpu, q: &WeightOnlyGemm<'_>) -> Result<[TensorMap; 4], GpuError> {
        let (weights, element) = (q.weights, if self.floats { 2 } else { 1 });
        // The packed bytes of 16 outputs, two elements an input.
        let weights = Matrix {
            at: weights.ptr(),
            element: weights.bits as usize,
            columns: weights.padded_k * 2,
            row_bytes: weights.padded_k * 2 * weights.bits as usize,
            rows: weights.padded_n / 16,
            tile: (self.tile_k() * 2, self.tiling.outputs() / 16),
            swizzled: false,
        };
        let x = Matrix {
            at: q.x,
            element,
            columns: q.k,
            row_bytes: q.k * element,
            rows: q.rows,
            tile: (self.tile_k(), self.tiling.rows),
            swizzled: true,
        };
        let (weights, x) = (weights.map(gpu)?, x.map(gpu)?);
        if !self.bulk {
            return Ok([weights, x, x, x]);
        }
        let first_n = q.more.first().map_or(q.weights.n, |next| next.start);
        let out = self.output(q, q.out, (first_n, q.out_stride));
        let residual = match q.residual {
            Some(at) => self.output(q, at, (q.weights.n, q.weights.n)),
            None => out,
        };
        Ok([weights, x, out.map(gpu)?, residual.map(gpu)?])
    }

    /// What boxes of outputs are copied to: `columns` of 16 bits in rows of `stride`.
    fn output(
        &self,
        q: &WeightOnlyGemm<'_>,
        at: DevicePtr,
        (columns, stride): (usize, usize),
    ) -> Matrix {
        Matrix {
            at,
            element: 2,
            columns,
            row_bytes: stride * 2,
            rows: q.rows,
            tile: (BOX_OUTPUTS, self.tiling.rows),
            swizzled: true,
        }
    }

    /// `MoreOutputs` of wgmma_output.cuh, if there are more.
    pub fn more(&self, gpu: &Gpu, q: &WeightOnlyGemm<'_>) -> Result<Vec<u8>, GpuError> {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for part in q.parts().skip(1) {
            let map = self.output(q, part.out, (part.n, part.out_stride)).map(gpu)?;
            bytes.extend_from_slice(map.bytes());
            starts.extend((part.start as i32).to_ne_bytes());
        }
        bytes.extend(starts);
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        Ok(bytes)
    }
}

/// Whether the copy engine can write the outputs and read the residual: 16-bit, in rows of whole 16
/// bytes, and each begins with a box.
pub(super) fn has_bulk_output(q: &WeightOnlyGemm<'_>) -> bool {
    let fits = |at: DevicePtr, stride: usize| at.0.is_multiple_of(16) && stride.is_multiple_of(8);
    let starts_with_box = |part: &Part| part.start.is_multiple_of(BOX_OUTPUTS);
    q.element.bytes() == 2
        && q.parts().all(|part| fits(part.out, part.out_stride) && starts_with_box(&part))
        && q.residual.is_none_or(|at| fits(at, q.weights.n))
}
