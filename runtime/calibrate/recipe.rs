//! How much is learned, and how fast.

use planish_passes::calibrate::ParameterKind;

/// Learning rates at the start, by kind of parameter; 0 leaves a kind as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of the transforms' matrices.
    pub matrix: f32,
    /// Of the logarithms of per-channel scales.
    pub scale: f32,
    /// Of clipping.
    pub clip: f32,
    /// Of the layers' weights; 0 keeps the weights.
    pub weight: f32,
}

impl Rates {
    /// The rate of a kind.
    pub fn of(&self, kind: ParameterKind) -> f32 {
        match kind {
            ParameterKind::Matrix => self.matrix,
            ParameterKind::Scale => self.scale,
            ParameterKind::Clip => self.clip,
            ParameterKind::Weight => self.weight,
        }
    }
}

/// What each block reads while it learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockInput {
    /// What the full-precision model feeds it: blocks do not depend on each other (FlatQuant).
    FullPrecision,
    /// What the quantised blocks before it give; it learns to make up for their errors.
    Quantized,
}

/// Learning block by block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockRecipe {
    /// Windows of text in all.
    pub windows: usize,
    /// Tokens of a window.
    pub length: usize,
    /// Windows of a step.
    pub batch: usize,
    /// Steps of every block.
    pub steps: usize,
    /// Learning rates at the start.
    pub rates: Rates,
    /// What each block reads.
    pub input: BlockInput,
}

/// Learning all blocks together at the end, by the KL divergence of the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EndToEndRecipe {
    /// Windows of a step.
    pub batch: usize,
    /// Steps; 0 leaves this stage out.
    pub steps: usize,
    /// Learning rates at the start.
    pub rates: Rates,
}

/// A whole calibration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Block by block.
    pub blocks: BlockRecipe,
    /// All together.
    pub end_to_end: EndToEndRecipe,
}

/// The fraction of the starting rate at step `step` of `steps`: cosine decay to 1/1000.
pub fn cosine(step: usize, steps: usize) -> f32 {
    const LAST: f32 = 1e-3;
    let progress = step as f32 / steps.max(1) as f32;
    LAST + (1.0 - LAST) * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos())
}
