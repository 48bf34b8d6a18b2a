//! Rounding of a factor to bfloat16, and its order in panels of tiles.
//!
//! A factor is seen as the rows that are multiplied with each other: A as it is, B transposed. A
//! panel is 32 of those rows, two tiles side by side for each 32 of the depth. All numbers come in
//! pairs along the depth: a tile of A is `[16 rows][16 pairs]`, one of B `[16 pairs][16 rows]`.

use super::{PANEL_STEP, SIDE, STEP, TILE};
use crate::mat::MatRef;
use crate::simd::{Avx512, Simd};
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of the factor in a tile.
const ROWS: usize = 16;

/// Which factor it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A: tiles of `[row][pair]`.
    Left,
    /// B: tiles of `[pair][row]`.
    Right,
}

/// Packs columns `depth` of the rows `rows` of `x` into `out`, zeros where the panels reach
/// beyond them.
///
/// # Safety
/// The machine has AVX-512 and AVX512-BF16; `x` fits its slice and has those rows and columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn pack(
    x: MatRef<'_>,
    rows: Range<usize>,
    depth: Range<usize>,
    form: Form,
    out: &mut [u32],
) {
    let steps = depth.len().div_ceil(STEP);
    let tiles = rows.len().div_ceil(SIDE) * 2;
    assert!(out.len() >= tiles / 2 * steps * PANEL_STEP, "packed panels do not fit");
    assert!(rows.end <= x.rows && depth.end <= x.cols && x.fits());
    let mut pack_one = |tile: usize, step: usize| {
        let first = (rows.start + tile * ROWS).min(rows.end);
        let start = depth.start + step * STEP;
        let part = Part {
            data: x.data.as_ptr().wrapping_add(first * x.row_stride + start * x.col_stride),
            rows: ROWS.min(rows.end - first),
            depth: STEP.min(depth.end - start),
            row_stride: x.row_stride,
            col_stride: x.col_stride,
        };
        let at = (tile / 2 * steps + step) * PANEL_STEP + tile % 2 * TILE;
        // SAFETY: the part lies in the view, the tile in `out`, as checked above.
        unsafe { pack_tile(&part, form, out[at..at + TILE].as_mut_ptr()) };
    };
    // Along the memory, as far as the tiles allow.
    if x.col_stride == 1 {
        (0..tiles).for_each(|tile| (0..steps).for_each(|step| pack_one(tile, step)));
    } else {
        (0..steps).for_each(|step| (0..tiles).for_each(|tile| pack_one(tile, step)));
    }
}

/// The elements of one tile: up to 16 rows by up to 32 of the depth.
struct Part {
    data: *const f32,
    rows: usize,
    depth: usize,
    row_stride: usize,
    col_stride: usize,
}

/// # Safety
/// The part can be read, [`TILE`] pairs can be written.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn pack_tile(part: &Part, form: Form, to: *mut u32) {
    // SAFETY: the caller's promise.
    unsafe {
        if part.col_stride == 1 {
            oriented(form == Form::Left, to, |to| by_rows(part, to));
        } else if part.row_stride == 1 {
            oriented(form == Form::Right, to, |to| by_pairs(part, to));
        } else {
            let dense = gathered(part);
            let data = dense.as_ptr();
            let part = Part { data, row_stride: STEP, col_stride: 1, ..*part };
            oriented(form == Form::Left, to, |to| by_rows(&part, to));
        }
    }
}

/// Lets `write` make the tile at `to`, by way of a transposition unless it `fits` as it is.
///
/// # Safety
/// [`TILE`] pairs can be written.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn oriented(fits: bool, to: *mut u32, write: impl FnOnce(*mut u32)) {
    if fits {
        return write(to);
    }
    let mut tile = Aligned([0u32; TILE]);
    write(tile.0.as_mut_ptr());
    // SAFETY: both are tiles; the bits are moved as they are.
    unsafe { Avx512::transpose(tile.0.as_ptr().cast(), 16, to.cast(), 16) };
}

#[repr(C, align(64))]
struct Aligned<T>(T);

/// `[row][pair]` of rows that are contiguous in memory.
///
/// # Safety
/// As [`pack_tile`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn by_rows(part: &Part, to: *mut u32) {
    let low = Avx512::first(part.depth.min(16));
    let high = Avx512::first(part.depth.saturating_sub(16));
    for row in 0..ROWS {
        let mut pairs = _mm512_setzero_si512();
        // SAFETY: the lanes of the masks lie in the part, the vector in the tile.
        unsafe {
            if row < part.rows {
                let from = part.data.add(row * part.row_stride);
                let second = Avx512::load_m(from.wrapping_add(16), high);
                pairs = rounded(Avx512::load_m(from, low), second);
            }
            _mm512_storeu_si512(to.add(row * 16).cast(), pairs);
        }
    }
}

/// `[pair][row]` of a depth each of whose columns is contiguous in memory.
///
/// # Safety
/// As [`pack_tile`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn by_pairs(part: &Part, to: *mut u32) {
    let rows = Avx512::first(part.rows);
    let order = interleaved();
    for pair in 0..STEP / 2 {
        // SAFETY: the lanes of the mask lie in the part, the vector in the tile.
        unsafe {
            let load = |k: usize| {
                let mask = if k < part.depth { rows } else { 0 };
                Avx512::load_m(part.data.wrapping_add(k * part.col_stride), mask)
            };
            let halves = rounded(load(2 * pair), load(2 * pair + 1));
            let pairs = _mm512_permutexvar_epi16(order, halves);
            _mm512_storeu_si512(to.add(pair * 16).cast(), pairs);
        }
    }
}

/// The bfloat16 numbers nearest to those of `low`, then those of `high`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn rounded(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 512 bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The order 0, 16, 1, 17, …
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn interleaved() -> __m512i {
    let lanes: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

/// The elements of a part of any strides, rows 32 elements apart.
///
/// # Safety
/// The part can be read.
unsafe fn gathered(part: &Part) -> [f32; ROWS * STEP] {
    let mut dense = [0.0; ROWS * STEP];
    for (row, dense) in dense.chunks_exact_mut(STEP).take(part.rows).enumerate() {
        for (k, x) in dense.iter_mut().take(part.depth).enumerate() {
            // SAFETY: the caller's promise.
            *x = unsafe { *part.data.add(row * part.row_stride + k * part.col_stride) };
        }
    }
    dense
}
