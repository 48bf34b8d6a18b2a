//! Symmetric quantisation of columns of a row-major matrix, or of groups of them, read back.
//!
//! The rows that share a scale are gone through twice, whole rows at a time (or one thread's share
//! of the columns): for the extremes, then for the result. What is kept of each column fits in a
//! core's own caches. Narrow strips of columns, whose elements would still be cached the second
//! time, are slower: each of their rows is in another page of memory.

use super::{Amplitude, Extreme, load, store};
use crate::extremes::just_before;
use crate::pool::ThreadPool;
use crate::quantize::Step;
use crate::shared::SharedMut;
use crate::simd::{Simd, simd_fn};
use crate::{Clip, Isa, QuantSpec};
use std::ops::Range;

/// Columns that tiles are multiples of: some vectors, a few cache lines.
const COLUMN_STEP: usize = 64;

/// A matrix `[k, n]` whose columns are quantised to codes −2^(bits−1) to 2^(bits−1) − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Columns.
    pub n: usize,
    /// Rows of a column that share a scale; 0: all of them.
    pub block: usize,
    /// Bits of a code, 2 to 8.
    pub bits: u32,
}

/// Factors on the largest and the smallest value of each group, `[k / block, n]` each.
#[derive(Clone, Copy, Debug)]
pub struct ColumnClips<'a> {
    /// Factors on the largest value.
    pub max: &'a [f32],
    /// Factors on the smallest value.
    pub min: &'a [f32],
}

/// The gradients of [`ColumnClips`], to be written.
#[derive(Debug)]
pub struct ColumnClipsMut<'a> {
    /// Of the factors on the largest value.
    pub max: &'a mut [f32],
    /// Of the factors on the smallest value.
    pub min: &'a mut [f32],
}

impl ColumnSpec {
    /// Rows that share a scale, and how many such groups there are.
    fn groups(&self, len: usize) -> (usize, usize) {
        let k = if self.n == 0 { 0 } else { len / self.n };
        let block = if self.block == 0 { k } else { self.block };
        let n_groups = if block == 0 { 0 } else { k / block };
        assert!(len == n_groups * block * self.n, "the groups do not fill the columns");
        (block, n_groups)
    }
}

/// Calls `f` on every tile of a matrix of `len` elements: its groups of rows, cut so far that there
/// is a tile for each thread.
fn for_each_tile(pool: &ThreadPool, spec: ColumnSpec, len: usize, f: impl Fn(Tile) + Sync) {
    let (n_rows, n_groups) = spec.groups(len);
    let cuts = pool.n_threads().div_ceil(n_groups.max(1));
    let width = spec.n.div_ceil(cuts).next_multiple_of(COLUMN_STEP);
    let n_tiles = spec.n.div_ceil(width.max(1));
    pool.for_each_dynamic(n_groups * n_tiles, 1, |tiles| {
        for i in tiles {
            let (group, first) = (i / n_tiles, i % n_tiles * width);
            let columns = first..(first + width).min(spec.n);
            f(Tile { group, n_rows, columns, stride: spec.n, bits: spec.bits });
        }
    });
}

/// out = code · scale of the columns (or groups of them) of `w` `[k, n]`: with
/// q = 2^(bits−1) − 1 scale = max(clip_max · max, −clip_min · min, 1e-8) / q and
/// code = clip(round(w / scale), −q − 1, q).
///
/// # Panics
/// When the lengths disagree.
pub fn fake_quantize_columns(
    pool: &ThreadPool,
    isa: Isa,
    w: &[f32],
    spec: ColumnSpec,
    clips: ColumnClips<'_>,
    out: &mut [f32],
) {
    let n_clips = spec.groups(w.len()).1 * spec.n;
    let lengths = clips.max.len() == n_clips && clips.min.len() == n_clips && out.len() == w.len();
    assert!(lengths, "fake_quantize_columns lengths");
    let out = SharedMut::new(out);
    for_each_tile(pool, spec, w.len(), |tile| round_trip(isa, w, &tile, clips, out));
}

/// The gradient of [`fake_quantize_columns`]: `dw` and the clips' `dclips` from `dy` and `w`.
///
/// # Panics
/// When the lengths disagree.
#[allow(clippy::too_many_arguments)]
pub fn fake_quantize_columns_grad(
    pool: &ThreadPool,
    isa: Isa,
    dy: &[f32],
    w: &[f32],
    spec: ColumnSpec,
    clips: ColumnClips<'_>,
    dw: &mut [f32],
    dclips: ColumnClipsMut<'_>,
) {
    let n_clips = spec.groups(w.len()).1 * spec.n;
    assert!(dy.len() == w.len() && dw.len() == w.len(), "fake_quantize_columns_grad lengths");
    for len in [clips.max.len(), clips.min.len(), dclips.max.len(), dclips.min.len()] {
        assert!(len == n_clips, "fake_quantize_columns_grad clip lengths");
    }
    let out = Gradients {
        w: SharedMut::new(dw),
        max: SharedMut::new(dclips.max),
        min: SharedMut::new(dclips.min),
    };
    for_each_tile(pool, spec, w.len(), |tile| gradient(isa, dy, w, &tile, clips, out));
}

/// A group of rows in some columns.
struct Tile {
    group: usize,
    n_rows: usize,
    columns: Range<usize>,
    stride: usize,
    bits: u32,
}

/// What the gradient writes; tiles write different parts.
#[derive(Clone, Copy)]
struct Gradients<'a> {
    w: SharedMut<'a, f32>,
    max: SharedMut<'a, f32>,
    min: SharedMut<'a, f32>,
}

impl Tile {
    fn width(&self) -> usize {
        self.columns.len()
    }

    /// Columns with room for whole vectors, for what is kept of each.
    fn padded(&self) -> usize {
        self.width().next_multiple_of(COLUMN_STEP)
    }

    /// Where the first element of a row of the tile stands in the matrix.
    fn at(&self, row: usize) -> usize {
        (self.group * self.n_rows + row) * self.stride + self.columns.start
    }

    /// Where the clips of the tile's columns stand.
    fn clips_at(&self) -> Range<usize> {
        let start = self.group * self.stride + self.columns.start;
        start..start + self.width()
    }

    fn q_max(&self) -> f32 {
        QuantSpec::new(self.bits).q_max()
    }
}

/// Scales of a tile's columns, and what they are made from.
struct Scales {
    low: Vec<f32>,
    high: Vec<f32>,
    scale: Vec<f32>,
    inverse: Vec<f32>,
}

impl Scales {
    /// The first pass over a tile.
    #[inline(always)]
    unsafe fn read<S: Simd>(w: &[f32], tile: &Tile, clips: ColumnClips<'_>) -> Self {
        let n = tile.padded();
        let (mut low, mut high) = (vec![f32::INFINITY; n], vec![f32::NEG_INFINITY; n]);
        let mut row = 0;
        // SAFETY: the rows lie inside the matrix, and `low` and `high` have room for vectors.
        unsafe {
            while row + 4 <= tile.n_rows {
                fold_rows::<S, 4>(w, tile, row, &mut low, &mut high);
                row += 4;
            }
            while row < tile.n_rows {
                fold_rows::<S, 1>(w, tile, row, &mut low, &mut high);
                row += 1;
            }
        }
        let q_max = tile.q_max();
        let (mut scale, mut inverse) = (vec![1.0; n], vec![1.0; n]);
        let clip_at = tile.clips_at().start;
        for j in 0..tile.width() {
            let clip = Clip { min: clips.min[clip_at + j], max: clips.max[clip_at + j] };
            scale[j] = Amplitude::new((low[j], high[j]), clip).floored() / q_max;
            inverse[j] = 1.0 / scale[j];
        }
        Self { low, high, scale, inverse }
    }

    /// The quantisers of the columns from `j` on.
    #[inline(always)]
    unsafe fn step<S: Simd>(&self, j: usize, q_max: f32) -> Step<S> {
        // SAFETY: the lists have room for whole vectors.
        let (scale, inverse) =
            unsafe { (S::load(self.scale.as_ptr().add(j)), S::load(self.inverse.as_ptr().add(j))) };
        Step::of_lanes(scale, inverse, q_max)
    }

    /// What decides the scale of column `j`.
    fn decided_by(&self, j: usize, clip: Clip) -> Option<Extreme> {
        let range = (self.low[j], self.high[j]);
        Amplitude::new(range, clip).decided_by(range, clip)
    }
}

/// Takes `R` rows into the extremes of their columns.
#[inline(always)]
unsafe fn fold_rows<S: Simd, const R: usize>(
    w: &[f32],
    tile: &Tile,
    row: usize,
    low: &mut [f32],
    high: &mut [f32],
) {
    let width = tile.width();
    let from = &w[tile.at(row)..tile.at(row + R - 1) + width];
    for j in (0..width).step_by(S::LANES) {
        let lanes = (width - j).min(S::LANES);
        // SAFETY: `from` spans the rows, and the lists have room for whole vectors.
        unsafe {
            let (l, h) = (low.as_mut_ptr().add(j), high.as_mut_ptr().add(j));
            let (mut least, mut most) = (S::load(l), S::load(h));
            for r in 0..R {
                let v = load::<S>(from.as_ptr().add(r * tile.stride + j), lanes);
                (least, most) = (S::min(least, v), S::max(most, v));
            }
            S::store(l, least);
            S::store(h, most);
        }
    }
}

simd_fn! {
    fn round_trip<S>(w: &[f32], tile: &Tile, clips: ColumnClips<'_>, out: SharedMut<'_, f32>) {
        let scales = Scales::read::<S>(w, tile, clips);
        let (width, q_max) = (tile.width(), tile.q_max());
        for row in 0..tile.n_rows {
            let at = tile.at(row)..tile.at(row) + width;
            let (from, to) = (&w[at.clone()], out.part(at));
            for j in (0..width).step_by(S::LANES) {
                let lanes = (width - j).min(S::LANES);
                let v = load::<S>(from.as_ptr().add(j), lanes);
                let y = scales.step::<S>(j, q_max).round_trip(v);
                store::<S>(to.as_mut_ptr().add(j), y, lanes);
            }
        }
    }
}

simd_fn! {
    fn gradient<S>(
        dy: &[f32],
        w: &[f32],
        tile: &Tile,
        clips: ColumnClips<'_>,
        out: Gradients<'_>,
    ) {
        let scales = Scales::read::<S>(w, tile, clips);
        let (width, q_max, zero) = (tile.width(), tile.q_max(), S::splat(0.0));
        let clip_at = tile.clips_at();
        let mut deciding = Deciding::new(&scales, tile, clips);
        let mut of_scale = vec![0.0f32; tile.padded()];
        // From the last row to the first, so that the first extreme is noted last.
        for row in (0..tile.n_rows).rev() {
            let at = tile.at(row)..tile.at(row) + width;
            let (g, x, to) = (&dy[at.clone()], &w[at.clone()], out.w.part(at));
            for j in (0..width).step_by(S::LANES) {
                let lanes = (width - j).min(S::LANES);
                let sum = of_scale.as_mut_ptr().add(j);
                let g = load::<S>(g.as_ptr().add(j), lanes);
                let v = load::<S>(x.as_ptr().add(j), lanes);
                let (inside, slope) = scales.step::<S>(j, q_max).through(v, g, zero);
                S::store(sum, S::fma(g, slope, S::load(sum)));
                store::<S>(to.as_mut_ptr().add(j), inside, lanes);
                deciding.note::<S>(v, j, row);
            }
        }
        let (max, min) = (out.max.part(clip_at.clone()), out.min.part(clip_at));
        for (j, extreme) in deciding.extremes.iter().enumerate() {
            (max[j], min[j]) = (0.0, 0.0);
            let Some(extreme) = extreme else { continue };
            let (of_value, of_clip) = extreme.gradients(of_scale[j] / q_max);
            let at = tile.at(deciding.rows[j] as usize) + j;
            out.w.part(at..at + 1)[0] += of_value;
            *(if extreme.sign > 0.0 { &mut max[j] } else { &mut min[j] }) = of_clip;
        }
    }
}

/// The elements that decide the scales of a tile's columns, looked for on the way.
struct Deciding {
    extremes: Vec<Option<Extreme>>,
    /// The row that held the extreme last; as a float, in which rows up to 2²⁴ are exact.
    rows: Vec<f32>,
    sign: Vec<f32>,
    /// What sign · w is above only where it is the extreme.
    before: Vec<f32>,
}

impl Deciding {
    fn new(scales: &Scales, tile: &Tile, clips: ColumnClips<'_>) -> Self {
        let at = tile.clips_at();
        let pairs = clips.min[at.clone()].iter().zip(&clips.max[at]);
        let decided = |(j, (min, max)): (usize, (&f32, &f32))| {
            scales.decided_by(j, Clip { min: *min, max: *max })
        };
        let extremes: Vec<Option<Extreme>> = pairs.enumerate().map(decided).collect();
        let n = tile.padded();
        let (mut sign, mut before) = (vec![1.0; n], vec![f32::INFINITY; n]);
        for (j, extreme) in extremes.iter().enumerate() {
            if let Some(extreme) = extreme {
                sign[j] = extreme.sign;
                before[j] = just_before(extreme.value, extreme.sign);
            }
        }
        Self { extremes, rows: vec![0.0; n], sign, before }
    }

    /// Notes which of `v`, of `row` in the columns from `j` on, are extremes.
    #[inline(always)]
    unsafe fn note<S: Simd>(&mut self, v: S::F, j: usize, row: usize) {
        // SAFETY: the lists have room for whole vectors.
        unsafe {
            let signed = S::mul(v, S::load(self.sign.as_ptr().add(j)));
            let before = S::load(self.before.as_ptr().add(j));
            let rows = self.rows.as_mut_ptr().add(j);
            let noted = S::select_lt(before, signed, S::splat(row as f32), S::load(rows));
            S::store(rows, noted);
        }
    }
}
