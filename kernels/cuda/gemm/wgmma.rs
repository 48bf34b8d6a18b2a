//! How Hopper's kernel, wgmma.cu, cuts a product.

use super::problem::WeightOnlyGemm;
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
}

impl Tiling {
    /// What to choose from, with the share of the tensor cores' rate that each reaches.
    const CHOICES: [(Self, f64); 3] = [
        (Self { rows: 128, blocks: 2, band: 8 }, 1.0),
        (Self { rows: 128, blocks: 1, band: 8 }, 0.8),
        (Self { rows: 64, blocks: 1, band: 8 }, 0.6),
    ];

    /// The tiles that finish first, by the number of waves of them. Groups with scales of their
    /// own need room for a second set of sums.
    pub fn choose(rows: usize, n: usize, grouped: bool, multiprocessors: usize) -> Self {
        let time = |tiling: &Self, rate: f64| {
            let waves = tiling.count(rows, n).div_ceil(multiprocessors.max(1));
            (waves * tiling.rows * tiling.outputs()) as f64 / rate
        };
        let choices = &Self::CHOICES[usize::from(grouped)..];
        let times = choices.iter().map(|(tiling, rate)| (time(tiling, *rate), *tiling));
        times.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(choices[0].0, |(_, tiling)| tiling)
    }

    /// Outputs of a tile.
    pub fn outputs(&self) -> usize {
        128 * self.blocks
    }

    fn count(&self, rows: usize, n: usize) -> usize {
        rows.div_ceil(self.rows) * n.div_ceil(self.outputs())
    }

    /// Resident blocks.
    pub(super) fn grid(&self, rows: usize, n: usize, properties: &Properties) -> usize {
        self.count(rows, n).clamp(1, properties.multiprocessors as usize)
    }
}

/// What the kernel is compiled for besides types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub tiling: Tiling,
    pub bits: u32,
    /// Activations are floats, not codes.
    pub floats: bool,
    pub grouped: bool,
    /// The copy engine writes the output.
    pub bulk: bool,
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
        let out = Matrix {
            at: q.out,
            element: 2,
            columns: q.weights.n,
            row_bytes: q.out_stride * 2,
            rows: q.rows,
            tile: (BOX_OUTPUTS, self.tiling.rows),
            swizzled: true,
        };
        let residual = match q.residual {
            Some(at) => Matrix { at, row_bytes: q.weights.n * 2, ..out },
            None => out,
        };
        Ok([weights, x, out.map(gpu)?, residual.map(gpu)?])
    }
}

/// Whether the copy engine can write the output and read the residual: 16-bit, in rows of whole 16
/// bytes.
pub(super) fn has_bulk_output(q: &WeightOnlyGemm<'_>) -> bool {
    let fits = |at: DevicePtr, stride: usize| at.0.is_multiple_of(16) && stride.is_multiple_of(8);
    q.element.bytes() == 2
        && fits(q.out, q.out_stride)
        && q.residual.is_none_or(|at| fits(at, q.weights.n))
}
