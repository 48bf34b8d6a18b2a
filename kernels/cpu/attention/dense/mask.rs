//! Explicit masks.

use crate::Isa;
use crate::simd::simd_fn;
use std::ops::Range;

/// A mask over the scores `[batch, query heads, queries, keys]`, broadcast by steps.
#[derive(Clone, Copy, Debug)]
pub struct AttentionMask<'a> {
    /// The elements.
    pub values: MaskValues<'a>,
    /// Elements from one entry of each axis to the next; 0 where the mask is broadcast.
    pub steps: [usize; 4],
    /// Keys from this one on are hidden.
    pub n_keys: usize,
}

/// What the elements of a mask mean.
#[derive(Clone, Copy, Debug)]
pub enum MaskValues<'a> {
    /// They are added to the scores; −∞ hides a key.
    Added(&'a [f32]),
    /// The keys whose element is not 0 are seen.
    Seen(&'a [u8]),
}

impl AttentionMask<'_> {
    /// Whether every element that scores of shape `sizes` ask for is there.
    pub(super) fn fits(&self, sizes: [usize; 4]) -> bool {
        let len = match self.values {
            MaskValues::Added(values) => values.len(),
            MaskValues::Seen(values) => values.len(),
        };
        let [b, h, q, k] = sizes;
        let sizes = [b, h, q, k.min(self.n_keys)];
        let last: usize = sizes.iter().zip(self.steps).map(|(n, s)| n.saturating_sub(1) * s).sum();
        sizes.contains(&0) || last < len
    }

    /// Masks the scores of the keys `keys` of one query; `at` holds batch, query head and query.
    pub(super) fn apply(&self, isa: Isa, at: [usize; 3], keys: Range<usize>, scores: &mut [f32]) {
        let known = self.n_keys.saturating_sub(keys.start).min(keys.len());
        let (scores, beyond) = scores.split_at_mut(known);
        beyond.fill(f32::NEG_INFINITY);
        if known == 0 {
            return;
        }
        let [b, h, q, k] = self.steps;
        let start = at[0] * b + at[1] * h + at[2] * q + keys.start * k;
        match self.values {
            MaskValues::Added(values) if k == 1 => add(isa, &values[start..][..known], scores),
            MaskValues::Seen(values) if k == 1 => hide(isa, &values[start..][..known], scores),
            MaskValues::Added(values) => {
                (0..known).for_each(|j| scores[j] += values[start + j * k]);
            }
            MaskValues::Seen(values) => {
                let hidden = (0..known).filter(|j| values[start + j * k] == 0);
                hidden.for_each(|j| scores[j] = f32::NEG_INFINITY);
            }
        }
    }
}

simd_fn! {
    fn add<S>(mask: &[f32], scores: &mut [f32]) {
        for (score, mask) in scores.iter_mut().zip(mask) {
            *score += mask;
        }
    }
}

simd_fn! {
    fn hide<S>(mask: &[u8], scores: &mut [f32]) {
        let n = mask.len().min(scores.len());
        let (half, hidden) = (S::splat(0.5), S::splat(f32::NEG_INFINITY));
        let whole = n / S::LANES * S::LANES;
        for j in (0..whole).step_by(S::LANES) {
            let p = scores.as_mut_ptr().add(j);
            let seen = S::load_u8(mask.as_ptr().add(j));
            S::store(p, S::select_lt(seen, half, hidden, S::load(p)));
        }
        for j in whole..n {
            scores[j] = if mask[j] == 0 { f32::NEG_INFINITY } else { scores[j] };
        }
    }
}
