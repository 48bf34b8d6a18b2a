//! Quantisation that is read back at once, and its straight-through gradient (Bengio et al. 2013,
//! arXiv 1308.3432; of the scale: Esser et al. 2020, LSQ, arXiv 1902.08153).
//!
//! Rounding counts as the identity, so with t = x / scale and a code that is not clipped the
//! gradient of x is that of the result, and that of the scale is dy · (code − t); where the code is
//! clipped they are 0 and dy · code. The scale depends on the extremes of the values and on the
//! factors that clip them, and passes its gradient on to both.
//!
//! Sums over several rows are made of fixed chunks, so results do not depend on the number of
//! threads.

mod columns;
mod heads;
mod rows;

pub use columns::{
    ColumnClips, ColumnClipsMut, ColumnSpec, fake_quantize_columns, fake_quantize_columns_grad,
};
pub use heads::fake_quantize_heads_grad;
pub use rows::{fake_quantize_rows, fake_quantize_rows_grad};

use crate::pool::ThreadPool;
use crate::quantize::AMPLITUDE_FLOOR;
use crate::shared::SharedMut;
use crate::{Clip, simd::Simd};
use std::ops::Range;

/// Values of a chunk that is summed up by itself; below it rows are not worth another thread.
const CHUNK_VALUES: usize = 8_192;

/// The amplitude that a symmetric scale is made from, without its floor.
#[derive(Clone, Copy)]
struct Amplitude {
    from_low: f32,
    from_high: f32,
}

/// The extreme that decides an amplitude, which is sign · clip · value.
#[derive(Clone, Copy)]
struct Extreme {
    sign: f32,
    value: f32,
    clip: f32,
}

impl Amplitude {
    #[inline(always)]
    fn new((low, high): (f32, f32), clip: Clip) -> Self {
        Self { from_low: -clip.min * low, from_high: clip.max * high }
    }

    /// The amplitude with its floor.
    #[inline(always)]
    fn floored(&self) -> f32 {
        self.from_high.max(self.from_low).max(AMPLITUDE_FLOOR)
    }

    /// What decides it: the largest value where both do, `None` where the floor does.
    #[inline(always)]
    fn decided_by(&self, (low, high): (f32, f32), clip: Clip) -> Option<Extreme> {
        if self.from_high.max(self.from_low) <= AMPLITUDE_FLOOR {
            None
        } else if self.from_high >= self.from_low {
            Some(Extreme { sign: 1.0, value: high, clip: clip.max })
        } else {
            Some(Extreme { sign: -1.0, value: low, clip: clip.min })
        }
    }
}

impl Extreme {
    /// The gradients of the value and of the factor that clips it.
    #[inline(always)]
    fn gradients(&self, of_amplitude: f32) -> (f32, f32) {
        let signed = self.sign * of_amplitude;
        (signed * self.clip, signed * self.value)
    }
}

/// Gradients of the factors, summed up.
#[derive(Clone, Copy, Default)]
struct ClipSums {
    min: f64,
    max: f64,
}

/// Calls `f` on ranges of rows of `n` values, and adds up what it returns in their order.
fn sum_of_chunks(
    pool: &ThreadPool,
    n_rows: usize,
    n: usize,
    f: impl Fn(Range<usize>) -> ClipSums + Sync,
) -> Clip {
    let chunk = CHUNK_VALUES.div_ceil(n.max(1));
    let n_chunks = n_rows.div_ceil(chunk);
    let mut sums = vec![ClipSums::default(); n_chunks];
    let shared = SharedMut::new(&mut sums);
    pool.for_each_chunk(n_chunks, 1, |chunks| {
        for c in chunks {
            let sum = f(c * chunk..((c + 1) * chunk).min(n_rows));
            // SAFETY: each chunk is visited once.
            let slot = unsafe { shared.part(c..c + 1) };
            slot[0] = sum;
        }
    });
    let add = |a: ClipSums, b: &ClipSums| ClipSums { min: a.min + b.min, max: a.max + b.max };
    let total = sums.iter().fold(ClipSums::default(), add);
    Clip { min: total.min as f32, max: total.max as f32 }
}

/// The first `lanes` values at `p`, zeros after them.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn load<S: Simd>(p: *const f32, lanes: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { if lanes == S::LANES { S::load(p) } else { S::load_m(p, S::first(lanes)) } }
}

/// Writes the first `lanes` values of `v` to `p`.
///
/// # Safety
/// They can be written.
#[inline(always)]
unsafe fn store<S: Simd>(p: *mut f32, v: S::F, lanes: usize) {
    // SAFETY: the caller's promise.
    unsafe { if lanes == S::LANES { S::store(p, v) } else { S::store_m(p, v, S::first(lanes)) } }
}
