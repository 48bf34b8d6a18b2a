//! Straight-through gradients of quantisers, the plain way.
//!
//! Rounding counts as the identity; see `planish_cpu`'s `fake_quantize` for where the formulas
//! come from.

use super::quant::{FLOOR, Quantiser, extremes};

/// The gradients of a row and of the factors that clip its extremes.
pub(in crate::ops) struct RowGradient {
    pub dx: Vec<f32>,
    pub clip_max: f64,
    pub clip_min: f64,
}

impl RowGradient {
    /// Of `dx` for a fixed scale and the gradients of clip_max · max and clip_min · min: these go
    /// on to the factors and to the first elements that are the extremes.
    fn new(dx: Vec<f64>, x: &[f32], quantiser: &Quantiser, of_high: f64, of_low: f64) -> Self {
        let (low, high) = if x.is_empty() { (0.0, 0.0) } else { extremes(x) };
        let mut dx = dx;
        for (extreme, gradient) in [
            (high, of_high * f64::from(quantiser.clip_max)),
            (low, of_low * f64::from(quantiser.clip_min)),
        ] {
            if let Some(first) = x.iter().position(|v| *v == extreme) {
                dx[first] += gradient;
            }
        }
        let dx = dx.into_iter().map(|v| v as f32).collect();
        Self { dx, clip_max: of_high * f64::from(high), clip_min: of_low * f64::from(low) }
    }
}

/// The gradient of codes · scale of [`Quantiser::symmetric`].
pub(in crate::ops) fn symmetric(quantiser: &Quantiser, dy: &[f32], x: &[f32]) -> RowGradient {
    let qmax = quantiser.q_max();
    let (codes, scale) = quantiser.symmetric(x);
    let (mut dx, mut of_scale) = (vec![0.0; x.len()], 0.0);
    for (i, (x, dy)) in x.iter().zip(dy).enumerate() {
        let (quotient, dy) = (x / scale, f64::from(*dy));
        of_scale += dy * f64::from(codes[i]);
        if (-qmax - 1.0..=qmax).contains(&quotient.round_ties_even()) {
            of_scale -= dy * f64::from(quotient);
            dx[i] = dy;
        }
    }
    let (low, high) = extremes(x);
    let (from_high, from_low) = (quantiser.clip_max * high, -(quantiser.clip_min * low));
    let of_amplitude = of_scale / f64::from(qmax);
    let (of_high, of_low) = match (from_high.max(from_low) > FLOOR, from_high >= from_low) {
        (false, _) => (0.0, 0.0),
        (true, true) => (of_amplitude, 0.0),
        (true, false) => (0.0, -of_amplitude),
    };
    RowGradient::new(dx, x, quantiser, of_high, of_low)
}

/// The gradient of [`Quantiser::round_trip`].
pub(in crate::ops) fn asymmetric(quantiser: &Quantiser, dy: &[f32], x: &[f32]) -> RowGradient {
    let qmax = ((1 << quantiser.bits) - 1) as f32;
    let (low, high) = extremes(x);
    let (low, high) = (quantiser.clip_min * low, quantiser.clip_max * high);
    let scale = (high - low).max(FLOOR) / qmax;
    let shift = -low / scale;
    let zero = shift.round_ties_even();
    let (mut dx, mut of_scale, mut clipped) = (vec![0.0; x.len()], 0.0, 0.0);
    for (i, (x, dy)) in x.iter().zip(dy).enumerate() {
        let (quotient, dy) = (x / scale, f64::from(*dy));
        let unclipped = quotient.round_ties_even() + zero;
        let centred = f64::from(unclipped.clamp(0.0, qmax) - zero);
        if (0.0..=qmax).contains(&unclipped) {
            of_scale += dy * (centred - f64::from(quotient));
            dx[i] = dy;
        } else {
            of_scale += dy * (centred + f64::from(shift));
            clipped += dy;
        }
    }
    let of_high = if high - low > FLOOR { of_scale / f64::from(qmax) } else { 0.0 };
    RowGradient::new(dx, x, quantiser, of_high, clipped - of_high)
}
