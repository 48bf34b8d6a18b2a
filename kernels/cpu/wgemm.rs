//! Weight-only products: f32 activations times packed integer weights.

use crate::packed::{PackedWeights, TILE_N};
use crate::pool::ThreadPool;
use crate::qgemm::{Target, product};
use crate::sgemm::{Block, gemm_block};
use crate::shared::SharedMut;
use crate::simd::simd_fn;
use crate::{Isa, scratch};
use std::ops::Range;

/// Columns dequantised at a time.
const PANEL: usize = 64;
/// Rows of K dequantised at a time, about.
const DEPTH: usize = 144;

/// How the activations enter a weight-only product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Weights are dequantised to f32, and all products and sums are f32.
    Exact,
    /// Each row of activations is rounded to 16-bit fixed point, with an error of at most 2⁻¹⁶ of
    /// the row's largest magnitude a value, and the integer kernels take its two bytes as two
    /// rows. The sums over K are exact.
    Fixed16,
}

/// out\[m, n\] = Σ_k a\[m, k\] · w_code\[k, n\]·w_scale (+ bias\[n\]), for `a` `[m, K]` row-major
/// and `out` `[m, N]`.
///
/// # Panics
/// When the lengths disagree, or with [`Precision::Fixed16`] K is above [`crate::MAX_K`].
pub fn wgemm(
    pool: &ThreadPool,
    isa: Isa,
    precision: Precision,
    a: &[f32],
    w: &PackedWeights,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let m = if w.n == 0 { 0 } else { out.len() / w.n };
    assert!(out.len() == m * w.n && a.len() == m * w.k, "wgemm lengths");
    assert!(bias.is_none_or(|b| b.len() == w.n), "wgemm bias length");
    match precision {
        Precision::Exact => exact(pool, isa, a, m, w, bias, out),
        Precision::Fixed16 => fixed16(pool, isa, a, m, w, bias, out),
    }
}

fn fixed16(
    pool: &ThreadPool,
    isa: Isa,
    a: &[f32],
    m: usize,
    w: &PackedWeights,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let k = w.k;
    scratch::with(2 * m * k, |codes: &mut [i8]| {
        scratch::with(2 * m, |scales: &mut [f32]| {
            let (all_codes, all_scales) = (SharedMut::new(codes), SharedMut::new(scales));
            pool.for_each_chunk(m, 16_384usize.div_ceil(k.max(1)), |rows| {
                for i in rows {
                    // SAFETY: each row is visited once.
                    let (codes, scales) = unsafe {
                        (
                            all_codes.part(2 * i * k..2 * (i + 1) * k),
                            all_scales.part(2 * i..2 * i + 2),
                        )
                    };
                    let step = split_row(isa, &a[i * k..(i + 1) * k], codes);
                    scales.copy_from_slice(&[256.0 * step, step]);
                }
            });
            let out = SharedMut::new(out);
            let (codes, a_scales) = (&*codes, &*scales);
            let target = Target::F32 { a_scales, bias, out, accumulate: false, planes: true };
            product(pool, isa, codes, 2 * m, w, target);
        });
    });
}

simd_fn! {
    /// Writes the high bytes of the fixed-point row, then the low ones; returns the step.
    fn split_row<S>(x: &[f32], codes: &mut [i8]) -> f32 {
        // With this largest value, both bytes of ±it fit the signed range.
        const LARGEST: f32 = (127 * 256 + 127) as f32;
        let step = x.iter().fold(0f32, |m, v| m.max(v.abs())).max(1e-30) / LARGEST;
        let inverse = 1.0 / step;
        let (high, low) = codes.split_at_mut(x.len());
        for ((&x, high), low) in x.iter().zip(high).zip(low) {
            let v = (x * inverse).round_ties_even() as i32;
            *high = ((v + 128) >> 8) as i8;
            *low = v as i8;
        }
        step
    }
}

fn exact(
    pool: &ThreadPool,
    isa: Isa,
    a: &[f32],
    m: usize,
    w: &PackedWeights,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    match bias {
        Some(bias) => out.chunks_exact_mut(w.n.max(1)).for_each(|row| row.copy_from_slice(bias)),
        None => out.fill(0.0),
    }
    let out = SharedMut::new(out);
    pool.for_each_dynamic(w.n.div_ceil(PANEL), 1, |panels| {
        for panel in panels {
            let cols = panel * PANEL..((panel + 1) * PANEL).min(w.n);
            exact_panel(isa, a, m, w, cols, out);
        }
    });
}

fn exact_panel(
    isa: Isa,
    a: &[f32],
    m: usize,
    w: &PackedWeights,
    cols: Range<usize>,
    out: SharedMut<'_, f32>,
) {
    scratch::with((DEPTH + 8) * PANEL, |panel: &mut [f32]| {
        let mut k = 0;
        while k < w.k {
            let group_end = ((k / w.group + 1) * w.group).min(w.k);
            let len = DEPTH.min(group_end - k);
            dequantize(isa, w, k..k + len, cols.clone(), panel);
            let block = Block {
                k: len,
                m,
                n: cols.len(),
                a: a[k..].as_ptr(),
                a_row: w.k,
                a_col: 1,
                b: panel.as_ptr(),
                ldb: PANEL,
                c: out.ptr_at(cols.start),
                ldc: w.n,
                alpha: 1.0,
                beta: 1.0,
            };
            // SAFETY: `wgemm` checked the lengths; this task alone writes these columns.
            unsafe { gemm_block(isa, &block) };
            k += len;
        }
    });
}

simd_fn! {
    /// Rows `depth` (inside one scale group, and starting at a multiple of 8 in it) and columns
    /// `cols` as f32, row-major with [`PANEL`] values a row.
    fn dequantize<S>(w: &PackedWeights, depth: Range<usize>, cols: Range<usize>, panel: &mut [f32]) {
        let group = depth.start / w.group;
        let start = group * w.group_padded + depth.start % w.group;
        let scales = &w.scales[group * w.n_padded()..];
        for (i, p) in (cols.start / TILE_N..cols.end.div_ceil(TILE_N)).enumerate() {
            let scales: &[f32] = &scales[p * TILE_N..][..TILE_N];
            for step in 0..depth.len().div_ceil(4) {
                let lanes = lanes_of(w, p, start / 4 + step);
                for r in 0..4 {
                    let row = &mut panel[(4 * step + r) * PANEL + i * TILE_N..][..TILE_N];
                    for c in 0..TILE_N {
                        let code = (lanes[c] >> (8 * r) & 255) as i32 - w.offset();
                        row[c] = code as f32 * scales[c];
                    }
                }
            }
        }
    }
}

/// Four rows of K of a panel: the unsigned codes of a column in the bytes of one word.
#[inline(always)]
fn lanes_of(w: &PackedWeights, panel: usize, step: usize) -> [u32; TILE_N] {
    let lines = w.panel(panel);
    let (line, shift) = if w.bits == 4 { (step / 2, 4 * (step % 2)) } else { (step, 0) };
    let mask = if w.bits == 4 { 0x0F0F_0F0F } else { u32::MAX };
    let bytes = lines[line].0.as_chunks::<4>().0;
    std::array::from_fn(|c| u32::from_le_bytes(bytes[c]) >> shift & mask)
}
