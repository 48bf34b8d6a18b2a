//! Quantisation of activations and of cached heads, the plain way, step by step in f32 as the
//! function bodies do it.

use planish_cpu::QuantSpec;

use crate::{OpError, OpNode};

/// The smallest range that a scale is made from.
pub(super) const FLOOR: f32 = 1e-8;

/// Bits and clipping of a quantiser, read from a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::ops) struct Quantiser {
    pub bits: u32,
    pub clip_min: f32,
    pub clip_max: f32,
}

impl Quantiser {
    /// Attributes `bits` (2 to 8), `clip_min` and `clip_max` (1 where absent).
    pub fn read(op: &OpNode) -> Result<Self, OpError> {
        Self::with_bits(op, op.node.int("bits", 0))
    }

    /// As [`Quantiser::read`] with the number of bits given.
    pub fn with_bits(op: &OpNode, bits: i64) -> Result<Self, OpError> {
        let clip_min = op.node.float("clip_min", 1.0);
        let clip_max = op.node.float("clip_max", 1.0);
        match u32::try_from(bits) {
            Ok(bits @ 2..=8) => Ok(Self { bits, clip_min, clip_max }),
            _ => Err(OpError::unsupported(format!("{bits} bits; 2 to 8 are possible"))),
        }
    }

    /// The same for the fast kernels.
    pub fn spec(&self) -> QuantSpec {
        QuantSpec { bits: self.bits, clip_min: self.clip_min, clip_max: self.clip_max }
    }

    /// The largest code of a symmetric quantiser.
    pub fn q_max(&self) -> f32 {
        ((1 << (self.bits - 1)) - 1) as f32
    }

    /// Symmetric codes of a row, and its scale.
    pub fn symmetric(&self, row: &[f32]) -> (Vec<i8>, f32) {
        let qmax = self.q_max();
        let (low, high) = extremes(row);
        let amax = (self.clip_max * high).max(-(self.clip_min * low));
        let scale = amax.max(FLOOR) / qmax;
        let code = |x: &f32| (x / scale).round_ties_even().clamp(-qmax - 1.0, qmax) as i8;
        (row.iter().map(code).collect(), scale)
    }

    /// Quantises a head's vector asymmetrically and reads it back.
    pub fn round_trip(&self, head: &mut [f32]) {
        let qmax = ((1 << self.bits) - 1) as f32;
        let (low, high) = extremes(head);
        let (low, high) = (self.clip_min * low, self.clip_max * high);
        let scale = (high - low).max(FLOOR) / qmax;
        let zero = (-low / scale).round_ties_even();
        for x in head {
            let code = ((*x / scale).round_ties_even() + zero).clamp(0.0, qmax);
            *x = (code - zero) * scale;
        }
    }
}

/// The smallest and the largest element.
pub(super) fn extremes(row: &[f32]) -> (f32, f32) {
    let start = (f32::INFINITY, f32::NEG_INFINITY);
    row.iter().fold(start, |(low, high), x| (low.min(*x), high.max(*x)))
}
