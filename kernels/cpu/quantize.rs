//! Symmetric quantisation of activation rows to signed codes, one scale a row.

use crate::simd::{Simd, simd_fn};
use crate::transform::{Kronecker, RowSource, transform_quantize};
use crate::{Isa, pool::ThreadPool};

/// The smallest amplitude a row's scale is made from.
pub const AMPLITUDE_FLOOR: f32 = 1e-8;

/// Width and clipping of a symmetric quantiser.
///
/// With q = 2^(bits−1) − 1: scale = max(clip_max·max(x), −clip_min·min(x), 1e-8) / q and
/// code = clip(round(x / scale), −q − 1, q). The divisions are IEEE f32 ones and halves round to
/// even, so the codes equal those of ONNX Div, Round and Clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantSpec {
    /// Bits of a code, 2 to 8.
    pub bits: u32,
    /// Factor on the smallest value of the row.
    pub clip_min: f32,
    /// Factor on the largest value of the row.
    pub clip_max: f32,
}

impl QuantSpec {
    /// A quantiser of `bits` bits that clips nothing.
    pub fn new(bits: u32) -> Self {
        Self { bits, clip_min: 1.0, clip_max: 1.0 }
    }

    /// The largest code, 2^(bits−1) − 1.
    pub fn q_max(&self) -> f32 {
        ((1i32 << (self.bits.clamp(2, 8) - 1)) - 1) as f32
    }
}

/// Quantises the rows of `x` `[m, n]`: codes into `codes` `[m, n]`, scales into `scales` `[m]`.
///
/// # Panics
/// When the lengths disagree.
pub fn quantize_rows(
    pool: &ThreadPool,
    isa: Isa,
    x: &[f32],
    n: usize,
    spec: QuantSpec,
    codes: &mut [i8],
    scales: &mut [f32],
) {
    let identity = Kronecker { n1: 1, n2: n, p1: None, p2: None };
    transform_quantize(pool, isa, RowSource::Plain(x), identity, spec, codes, scales);
}

simd_fn! {
    /// Quantises one row and returns its scale.
    pub(crate) fn quantize_row<S>(x: &[f32], spec: QuantSpec, codes: &mut [i8]) -> f32 {
        assert_eq!(x.len(), codes.len(), "quantised row length");
        let (low, high) = extrema::<S>(x);
        let amplitude = (spec.clip_max * high).max(-spec.clip_min * low).max(AMPLITUDE_FLOOR);
        let q_max = spec.q_max();
        let step = Step::<S>::new(amplitude / q_max, 0.0, -q_max - 1.0, q_max);
        let (from, to) = (x.as_ptr(), codes.as_mut_ptr());
        for i in (0..x.len()).step_by(S::LANES) {
            let lanes = (x.len() - i).min(S::LANES);
            let v = if lanes == S::LANES { S::load(from.add(i)) } else { S::load_m(from.add(i), S::first(lanes)) };
            S::store_bytes(to.add(i), step.codes(v), lanes);
        }
        amplitude / q_max
    }
}

/// The smallest and the largest of the values and 0.
#[inline(always)]
unsafe fn extrema<S: Simd>(x: &[f32]) -> (f32, f32) {
    let zero = S::splat(0.0);
    let (mut low, mut high) = ([zero; 2], [zero; 2]);
    let mut i = 0;
    // SAFETY: the vectors lie inside the slice; the last is masked.
    unsafe {
        while i + 2 * S::LANES <= x.len() {
            for half in 0..2 {
                let v = S::load(x.as_ptr().add(i + half * S::LANES));
                low[half] = S::min(low[half], v);
                high[half] = S::max(high[half], v);
            }
            i += 2 * S::LANES;
        }
        while i < x.len() {
            let v = S::load_m(x.as_ptr().add(i), S::first((x.len() - i).min(S::LANES)));
            low[0] = S::min(low[0], v);
            high[0] = S::max(high[0], v);
            i += S::LANES;
        }
    }
    (S::reduce_min(S::min(low[0], low[1])), S::reduce_max(S::max(high[0], high[1])))
}

/// A quantiser's step: code = clip(round(x / scale) + zero, low, high).
#[derive(Clone, Copy)]
pub(crate) struct Step<S: Simd> {
    scale: S::F,
    inverse: S::F,
    zero: S::F,
    low: S::F,
    high: S::F,
}

impl<S: Simd> Step<S> {
    #[inline(always)]
    pub(crate) fn new(scale: f32, zero: f32, low: f32, high: f32) -> Self {
        Self {
            scale: S::splat(scale),
            inverse: S::splat(1.0 / scale),
            zero: S::splat(zero),
            low: S::splat(low),
            high: S::splat(high),
        }
    }

    /// Of scales that differ from lane to lane, given with their inverses, around zero.
    #[inline(always)]
    pub(crate) fn of_lanes(scale: S::F, inverse: S::F, q_max: f32) -> Self {
        let (low, high) = (S::splat(-q_max - 1.0), S::splat(q_max));
        Self { scale, inverse, zero: S::splat(0.0), low, high }
    }

    /// The codes of a vector, as whole numbers.
    #[inline(always)]
    pub(crate) fn codes(&self, x: S::F) -> S::F {
        self.clip(self.unclipped(x).1)
    }

    /// The values of a vector after quantisation, (code − zero) · scale.
    #[inline(always)]
    pub(crate) fn round_trip(&self, x: S::F) -> S::F {
        S::mul(S::sub(self.codes(x), self.zero), self.scale)
    }

    /// The straight-through gradients of [`Step::round_trip`]: from `dy` that of `x` (`dy` inside
    /// the range of codes, 0 outside), and what the result changes by with the scale.
    ///
    /// With t = x / scale that is (code − zero) − t inside and (code − zero) + u outside, where
    /// the zero point is a rounded u = −low / scale; `minus_u` is −u, 0 without a zero point.
    #[inline(always)]
    pub(crate) fn through(&self, x: S::F, dy: S::F, minus_u: S::F) -> (S::F, S::F) {
        let (quotient, unclipped) = self.unclipped(x);
        let (code, half) = (self.clip(unclipped), S::splat(0.5));
        let off = S::abs(S::sub(unclipped, code));
        let dx = S::select_lt(off, half, dy, S::splat(0.0));
        let taken = S::select_lt(off, half, quotient, minus_u);
        (dx, S::sub(S::sub(code, self.zero), taken))
    }

    #[inline(always)]
    fn clip(&self, unclipped: S::F) -> S::F {
        S::min(S::max(unclipped, self.low), self.high)
    }

    /// x / scale to a relative error of 2⁻²², and round(x / scale) + zero exactly.
    ///
    /// The product with 1/scale is within 2⁻²² of the quotient, relatively. Where it lies more
    /// than 10⁻⁴ from a half and below 256 it therefore rounds as the quotient does; only other
    /// vectors pay for the division.
    #[inline(always)]
    fn unclipped(&self, x: S::F) -> (S::F, S::F) {
        let limit = S::splat(0.4999);
        let mut quotient = S::mul(x, self.inverse);
        let mut rounded = S::round(quotient);
        let off = S::abs(S::sub(quotient, rounded));
        let large = S::mul(S::abs(quotient), S::splat(0.4999 / 256.0));
        if S::any_gt(S::max(off, large), limit) {
            quotient = S::div(x, self.scale);
            rounded = S::round(quotient);
        }
        (quotient, S::add(rounded, self.zero))
    }
}
