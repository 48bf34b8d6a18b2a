//! Numbers that depend on nothing but their place, so that any thread can make any of them.

/// Odd, and near 2⁶⁴ over the golden ratio: consecutive counters are far apart.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Standard deviation of the sum of four 16-bit numbers, √(4 · (2³² − 1) / 12).
const SUM_DEVIATION: f32 = 37_837.23;
const SUM_MEAN: f32 = 2.0 * 65_535.0;

/// A sequence of random numbers that can be entered anywhere.
#[derive(Clone, Copy)]
pub(super) struct Sequence(u64);

impl Sequence {
    /// The sequence `number` of those that belong to `seed`.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        Self(mix(mix(seed) ^ number.wrapping_mul(STEP)))
    }

    /// 64 random bits.
    pub(super) fn bits(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(STEP)))
    }

    /// A number that is normally distributed but for its tails, which end at 3.5 deviations: the
    /// sum of four uniform ones.
    pub(super) fn normal(self, index: u64) -> f32 {
        let bits = self.bits(index);
        let part = |shift: u32| (bits >> shift) as u32 & 0xFFFF;
        let sum = part(0) + part(16) + part(32) + part(48);
        (sum as f32 - SUM_MEAN) / SUM_DEVIATION
    }
}

/// SplitMix64's finalising steps (Steele, Lea and Flood, 2014): every bit of the result depends
/// on every bit of `x`.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distributed_normally() {
        let sequence = Sequence::new(1, 2);
        let n = 100_000;
        let values: Vec<f32> = (0..n).map(|i| sequence.normal(i)).collect();
        let moment = |p: i32| values.iter().map(|x| x.powi(p)).sum::<f32>() / n as f32;
        assert!(moment(1).abs() < 0.02, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.02, "{}", moment(2));
        // 3 for a true normal distribution, less without its tails.
        assert!((moment(4) - 2.7).abs() < 0.1, "{}", moment(4));
    }

    #[test]
    fn sequences_differ() {
        let first = |seed, number| Sequence::new(seed, number).bits(0);
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(1, 3));
        assert_ne!(first(1, 2), first(2, 2));
    }
}
