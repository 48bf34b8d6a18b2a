//! Rotary position embedding (Su et al. 2021, eq. 34), as ONNX's `RotaryEmbedding` lays it out.

use super::Dense;
use super::heads::Heads;
use crate::OpError;

/// Cosines and sines of the rotation angles.
pub(in crate::ops) struct Angles {
    pub cos: Dense,
    pub sin: Dense,
}

impl Angles {
    /// Checks that both have the same shape and `half` columns.
    pub fn new(cos: Dense, sin: Dense, half: usize) -> Result<Self, OpError> {
        if cos.shape != sin.shape || cos.last() != half {
            return Err(OpError::shape(format!(
                "cosines {:?} and sines {:?} must both have {half} columns",
                cos.shape, sin.shape
            )));
        }
        Ok(Self { cos, sin })
    }

    /// Row `index` of both caches.
    pub fn row(&self, index: i64) -> Result<(&[f32], &[f32]), OpError> {
        let n = self.cos.last().max(1);
        let start = usize::try_from(index).ok().and_then(|i| i.checked_mul(n));
        let range = start.map(|s| s..s.saturating_add(n));
        range
            .and_then(|r| Some((self.cos.data.get(r.clone())?, self.sin.data.get(r)?)))
            .ok_or_else(|| OpError::shape(format!("position {index} is outside the caches")))
    }
}

/// Rotates the first `2 · cos.len()` channels of one head: pairs (i, i + half), or neighbours
/// (2i, 2i + 1) where `interleaved`.
pub(in crate::ops) fn rotate(row: &mut [f32], cos: &[f32], sin: &[f32], interleaved: bool) {
    let half = cos.len();
    for i in 0..half {
        let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
        let (x, y) = (row[a], row[b]);
        row[a] = cos[i] * x - sin[i] * y;
        row[b] = sin[i] * x + cos[i] * y;
    }
}

/// Rotates every head at the row of the caches that `position(batch, index)` names.
pub(in crate::ops) fn rotate_all(
    x: &mut Heads,
    angles: &Angles,
    interleaved: bool,
    position: impl Fn(usize, usize) -> i64,
) -> Result<(), OpError> {
    if 2 * angles.cos.last() > x.size {
        return Err(OpError::shape("more channels are to be rotated than a head has"));
    }
    for b in 0..x.batch {
        for s in 0..x.seq {
            let (cos, sin) = angles.row(position(b, s))?;
            (0..x.heads).for_each(|h| rotate(x.row_mut(b, h, s), cos, sin, interleaved));
        }
    }
    Ok(())
}
