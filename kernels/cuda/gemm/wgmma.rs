//! How Hopper's kernel cuts a product.

use super::problem::QuantizedGemm;
use super::tensor_map::{Matrix, TensorMap};
use crate::{Gpu, GpuError, Properties};

/// Inputs of a stage.
const TILE_K: usize = 128;
/// Bytes that the two warpgroups transpose results through.
const STAGING: usize = 2 * 16384;
/// Shared memory that is neither stages nor staging: barriers, scales, alignment.
const REST: usize = 3072;

/// Tiles of Hopper's kernel, wgmma.cu.
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

    fn stage_bytes(&self, bits: u32) -> usize {
        (self.outputs() * bits as usize / 8 + self.rows) * TILE_K
    }

    /// Stages that fit into shared memory.
    pub(super) fn stages(&self, bits: u32, shared: usize) -> usize {
        (shared.saturating_sub(STAGING + REST) / self.stage_bytes(bits)).clamp(2, 8)
    }

    /// Dynamic bytes of shared memory, with room to align the stages.
    pub(super) fn shared(&self, bits: u32, stages: usize) -> usize {
        stages * self.stage_bytes(bits) + STAGING + 1024
    }

    /// Resident blocks.
    pub(super) fn grid(&self, rows: usize, n: usize, properties: &Properties) -> usize {
        self.count(rows, n).clamp(1, properties.multiprocessors as usize)
    }

    /// Maps of the weights and of the codes.
    pub(super) fn maps(
        &self,
        gpu: &Gpu,
        q: &QuantizedGemm<'_>,
    ) -> Result<(TensorMap, TensorMap), GpuError> {
        let weights = q.weights;
        // 16 outputs and 128 inputs take 256 elements, as many as a box may have.
        let weights = Matrix {
            at: weights.ptr(),
            element: weights.bits as usize,
            columns: weights.padded_k * 2,
            rows: weights.padded_n / 16,
            tile: (256, self.outputs() / 16),
            swizzled: false,
        };
        let codes = Matrix {
            at: q.codes,
            element: 1,
            columns: q.k,
            rows: q.rows,
            tile: (TILE_K, self.rows),
            swizzled: true,
        };
        Ok((weights.map(gpu)?, codes.map(gpu)?))
    }
}
