//! Differentiable stand-ins for quantisers, for the tests of their straight-through gradients.
//!
//! Rounding is replaced by the addition of what it added at the point of interest, and a clipped
//! code stays what it is there. The result is an ordinary function, which finite differences apply
//! to.

/// A value as the quantiser sees it, with what rounding does to it frozen.
enum Frozen {
    /// Not clipped: round(t) − t.
    Inside(f64),
    /// The code that it is clipped to.
    Clipped(f64),
}

/// A row with its clips.
#[derive(Clone)]
struct Point {
    x: Vec<f64>,
    clip_max: f64,
    clip_min: f64,
}

impl Point {
    /// clip_min · min and clip_max · max.
    fn range(&self) -> (f64, f64) {
        let low = self.x.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (self.clip_min * low, self.clip_max * high)
    }

    /// The number at `i`: the elements, then the clips.
    fn at(&mut self, i: usize) -> &mut f64 {
        match i.checked_sub(self.x.len()) {
            None => &mut self.x[i],
            Some(0) => &mut self.clip_max,
            Some(_) => &mut self.clip_min,
        }
    }
}

/// The gradients of Σ dy · y with respect to the elements of a row, clip_max and clip_min (in that
/// order), by finite differences, where y is the row quantised symmetrically with
/// `clips` = (clip_max, clip_min).
pub(in crate::ops) fn symmetric(bits: u32, dy: &[f32], x: &[f32], clips: (f32, f32)) -> Vec<f64> {
    let q = f64::from((1 << (bits - 1)) - 1);
    let scale = |p: &Point| {
        let (low, high) = p.range();
        high.max(-low).max(1e-8) / q
    };
    let point = point(x, clips);
    let s = scale(&point);
    let frozen: Vec<Frozen> = point.x.iter().map(|x| freeze(x / s, 0.0, -q - 1.0, q)).collect();
    differences(point, |p| {
        let s = scale(p);
        let y = |(i, x): (usize, &f64)| match frozen[i] {
            Frozen::Inside(off) => x + off * s,
            Frozen::Clipped(code) => code * s,
        };
        p.x.iter().enumerate().map(y).zip(dy).map(|(y, dy)| y * f64::from(*dy)).sum()
    })
}

/// As [`symmetric`], where y is the row quantised asymmetrically.
pub(in crate::ops) fn asymmetric(bits: u32, dy: &[f32], x: &[f32], clips: (f32, f32)) -> Vec<f64> {
    let q = f64::from((1 << bits) - 1);
    let scale = |p: &Point| {
        let (low, high) = p.range();
        (high - low).max(1e-8) / q
    };
    let point = point(x, clips);
    let (s, low) = (scale(&point), point.range().0);
    let zero = (-low / s).round_ties_even();
    // What rounding adds to the zero point.
    let off_zero = zero + low / s;
    let frozen: Vec<Frozen> = point.x.iter().map(|x| freeze(x / s, zero, 0.0, q)).collect();
    differences(point, |p| {
        let (s, low) = (scale(p), p.range().0);
        let zero = -low / s + off_zero;
        let y = |(i, x): (usize, &f64)| match frozen[i] {
            Frozen::Inside(off) => (x / s + off + zero - zero) * s,
            Frozen::Clipped(code) => (code - zero) * s,
        };
        p.x.iter().enumerate().map(y).zip(dy).map(|(y, dy)| y * f64::from(*dy)).sum()
    })
}

fn point(x: &[f32], (clip_max, clip_min): (f32, f32)) -> Point {
    let x = x.iter().map(|x| f64::from(*x)).collect();
    Point { x, clip_max: clip_max.into(), clip_min: clip_min.into() }
}

fn freeze(quotient: f64, zero: f64, low: f64, high: f64) -> Frozen {
    let rounded = quotient.round_ties_even();
    if (low..=high).contains(&(rounded + zero)) {
        Frozen::Inside(rounded - quotient)
    } else {
        Frozen::Clipped((rounded + zero).clamp(low, high))
    }
}

fn differences(point: Point, loss: impl Fn(&Point) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-6;
    let moved = |i: usize, by: f64| {
        let mut point = point.clone();
        *point.at(i) += by;
        loss(&point)
    };
    (0..point.x.len() + 2).map(|i| (moved(i, STEP) - moved(i, -STEP)) / (2.0 * STEP)).collect()
}
