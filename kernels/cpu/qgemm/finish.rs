//! What happens to a tile of integer sums: offset off, scales on, and out.

use crate::packed::{PackedWeights, TILE_N};
use crate::shared::SharedMut;
use crate::simd::Simd;

/// One integer product under way.
pub(crate) struct Job<'a> {
    pub(crate) w: &'a PackedWeights,
    /// `[m, padded K]`.
    pub(crate) codes: &'a [i8],
    /// Sum of the codes of each row and scale group, `[m, groups]`.
    pub(crate) sums: &'a [i32],
    pub(crate) m: usize,
    pub(crate) target: Target<'a>,
}

/// Where the sums go.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// The integers as they are, `[m, N]`.
    I32(SharedMut<'a, i32>),
    /// Scaled; with `planes`, the rows 2i and 2i + 1 are added into row i of the output.
    F32 {
        a_scales: &'a [f32],
        bias: Option<&'a [f32]>,
        out: SharedMut<'a, f32>,
        accumulate: bool,
        planes: bool,
    },
}

impl Target<'_> {
    pub(super) fn check(&self, n: usize) {
        if let Self::F32 { bias: Some(bias), .. } = self {
            assert_eq!(bias.len(), n, "qgemm bias length");
        }
    }
}

/// Rows `row..row + rows` by panels `panel..panel + panels` of the sums, in the making.
pub(super) struct TileSums<'t> {
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) panel: usize,
    pub(super) panels: usize,
    /// The sums of one scale group with the offset still in, `[rows, 16·panels]` with rows `ld`
    /// values apart.
    pub(super) ints: &'t [i32],
    pub(super) ld: usize,
    /// The scaled sums of the groups so far, laid out as `ints`; not used with one group.
    pub(super) floats: &'t mut [f32],
}

/// Takes in the sums of group `g`; the last group writes the tile out.
#[inline(always)]
pub(super) unsafe fn take_group<S: Simd>(job: &Job<'_>, t: &mut TileSums<'_>, g: usize) {
    assert!(t.rows == 0 || t.ints.len() >= (t.rows - 1) * t.ld + t.panels * TILE_N);
    assert!(job.w.n_groups == 1 || t.floats.len() >= t.ints.len());
    // SAFETY: the tile lies inside the buffers just checked.
    unsafe {
        match job.target {
            Target::I32(out) => add_ints(job, t, g, out),
            Target::F32 { .. } if job.w.n_groups == 1 => {
                write::<S, false>(job, t);
            }
            Target::F32 { .. } => {
                add_floats::<S>(job, t, g);
                if g + 1 == job.w.n_groups {
                    write::<S, true>(job, t);
                }
            }
        }
    }
}

/// The corrected and scaled sums of one group at a vector of the tile.
#[inline(always)]
unsafe fn group_value<S: Simd>(
    job: &Job<'_>,
    t: &TileSums<'_>,
    scales: *const f32,
    g: usize,
    r: usize,
    c: usize,
) -> S::F {
    let sum = job.sums[(t.row + r) * job.w.n_groups + g];
    let excess = job.w.offset().wrapping_mul(sum);
    // SAFETY: the caller's tile and the padded scales hold the vector.
    unsafe {
        S::mul(S::load_i32(t.ints.as_ptr().add(r * t.ld + c), excess), S::load(scales.add(c)))
    }
}

#[inline(always)]
unsafe fn add_floats<S: Simd>(job: &Job<'_>, t: &mut TileSums<'_>, g: usize) {
    // SAFETY: as in `take_group`.
    unsafe {
        let scales = job.w.scales.as_ptr().add(g * job.w.n_padded() + t.panel * TILE_N);
        for r in 0..t.rows {
            for c in (0..t.panels * TILE_N).step_by(S::LANES) {
                let value = group_value::<S>(job, t, scales, g, r, c);
                let p = t.floats.as_mut_ptr().add(r * t.ld + c);
                S::store(p, if g == 0 { value } else { S::add(S::load(p), value) });
            }
        }
    }
}

/// The scaled sums of all groups at a vector of the tile.
#[inline(always)]
unsafe fn total<S: Simd, const GROUPED: bool>(
    job: &Job<'_>,
    t: &TileSums<'_>,
    r: usize,
    c: usize,
) -> S::F {
    // SAFETY: as in `take_group`.
    unsafe {
        if GROUPED {
            S::load(t.floats.as_ptr().add(r * t.ld + c))
        } else {
            let scales = job.w.scales.as_ptr().add(t.panel * TILE_N);
            group_value::<S>(job, t, scales, 0, r, c)
        }
    }
}

/// Writes the tile out.
#[inline(always)]
unsafe fn write<S: Simd, const GROUPED: bool>(job: &Job<'_>, t: &TileSums<'_>) {
    let Target::F32 { a_scales, bias, out, accumulate, planes } = job.target else { return };
    let (n, first) = (job.w.n, t.panel * TILE_N);
    let cols = (t.panels * TILE_N).min(n - first);
    let step = 1 + usize::from(planes);
    for r in (0..t.rows).step_by(step) {
        let to = out.ptr_at((t.row + r) / step * n + first);
        let scale = S::splat(a_scales[t.row + r]);
        for c in (0..cols).step_by(S::LANES) {
            // SAFETY: rows of `out` have n values; the vector has the lanes inside the row.
            unsafe {
                let mut y = S::mul(total::<S, GROUPED>(job, t, r, c), scale);
                if planes {
                    let second = S::splat(a_scales[t.row + r + 1]);
                    y = S::fma(total::<S, GROUPED>(job, t, r + 1, c), second, y);
                }
                let lanes = S::first((cols - c).min(S::LANES));
                if let Some(bias) = bias {
                    y = S::add(y, S::load_m(bias.as_ptr().add(first + c), lanes));
                }
                if accumulate {
                    y = S::add(y, S::load_m(to.add(c), lanes));
                }
                S::store_m(to.add(c), y, lanes);
            }
        }
    }
}

unsafe fn add_ints(job: &Job<'_>, t: &TileSums<'_>, g: usize, out: SharedMut<'_, i32>) {
    let first = t.panel * TILE_N;
    let cols = (t.panels * TILE_N).min(job.w.n - first);
    for r in 0..t.rows {
        let start = (t.row + r) * job.w.n + first;
        // SAFETY: this task alone writes these rows and columns.
        let to = unsafe { out.part(start..start + cols) };
        let sum = job.sums[(t.row + r) * job.w.n_groups + g];
        let excess = job.w.offset().wrapping_mul(sum);
        for (y, x) in to.iter_mut().zip(&t.ints[r * t.ld..]) {
            *y = y.wrapping_add(x.wrapping_sub(excess));
        }
    }
}
