//! One query: the context is split over the threads, and codes are read as they are stored.

use super::AttentionSpec;
use super::load::{F32, pair_of_keys, pair_of_values};
use crate::kv::{BLOCK, GROUP, KvCache, Store};
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{Simd, map1, simd_fn, sum1};
use crate::softmax::max_of;
use crate::{Isa, math, scratch};
use std::ops::Range;

/// Query heads taken together.
const HEADS: usize = 4;
/// Blocks of keys times heads that a thread should have at least.
const MIN_UNITS: usize = 12;

/// The sums of one query head over a part of the keys: maximum, sum of exponentials, then the
/// weighted values, not yet divided.
struct Layout {
    stride: usize,
}

/// One head group's work: `n` query heads from `first` on the keys `keys` of one store.
struct Part<'a> {
    keys: &'a Store,
    values: &'a Store,
    range: Range<usize>,
    /// Queries times the scale, `[n, padded key dim]`.
    q: &'a [f32],
    n: usize,
    spec: AttentionSpec<'a>,
}

pub(super) fn decode(
    pool: &ThreadPool,
    isa: Isa,
    q: &[f32],
    cache: &KvCache,
    past_len: usize,
    spec: AttentionSpec<'_>,
    out: &mut [f32],
) {
    let visible = spec.visible(past_len, cache.len());
    if visible.is_empty() || spec.head_dim == 0 {
        return out.fill(0.0);
    }
    let layout = Layout { stride: 16 + spec.head_dim.next_multiple_of(GROUP) };
    let n_threads = pool.n_threads();
    scratch::with(n_threads * spec.n_heads * layout.stride, |sums: &mut [f32]| {
        for head in sums.chunks_exact_mut(layout.stride) {
            head[0] = f32::NEG_INFINITY;
        }
        let shared = SharedMut::new(sums);
        let blocks = visible.start / BLOCK..visible.end.div_ceil(BLOCK);
        let units = blocks.len() * spec.n_kv_heads;
        let parts = (units / MIN_UNITS).clamp(1, n_threads);
        let work = |thread: usize| {
            let mine = units * thread / parts..units * (thread + 1) / parts;
            // SAFETY: each thread has its own part of the sums.
            let sums = unsafe {
                let len = spec.n_heads * layout.stride;
                shared.part(thread * len..(thread + 1) * len)
            };
            share(isa, q, cache, &visible, spec, mine, sums, &layout);
        };
        match parts {
            1 => work(0),
            _ => pool.for_each_dynamic(parts, 1, |r| r.for_each(work)),
        }
        merge(isa, sums, parts, spec, &layout, out);
    });
}

/// The units `mine` of one thread: unit u is block u % n of the visible ones, of head u / n.
#[allow(clippy::too_many_arguments)]
fn share(
    isa: Isa,
    q: &[f32],
    cache: &KvCache,
    visible: &Range<usize>,
    spec: AttentionSpec<'_>,
    mine: Range<usize>,
    sums: &mut [f32],
    layout: &Layout,
) {
    let first_block = visible.start / BLOCK;
    let n_blocks = visible.end.div_ceil(BLOCK) - first_block;
    let mut unit = mine.start;
    while unit < mine.end {
        let head = unit / n_blocks;
        let end = mine.end.min((head + 1) * n_blocks);
        let start_key = (first_block + unit - head * n_blocks) * BLOCK;
        let end_key = (first_block + end - head * n_blocks) * BLOCK;
        let range = start_key.max(visible.start)..end_key.min(visible.end);
        let group = spec.group();
        for first in (head * group..(head + 1) * group).step_by(HEADS) {
            let n = HEADS.min((head + 1) * group - first);
            let sums = &mut sums[first * layout.stride..][..n * layout.stride];
            let (keys, values) = (cache.head_keys(head), cache.head_values(head));
            scratch::with(n * keys.padded, |scaled: &mut [f32]| {
                scaled.fill(0.0);
                for (i, row) in scaled.chunks_exact_mut(keys.padded).enumerate() {
                    let from = &q[(first + i) * spec.head_dim..][..spec.head_dim];
                    row.iter_mut().zip(from).for_each(|(y, x)| *y = x * spec.scale);
                }
                let part = Part { keys, values, range: range.clone(), q: scaled, n, spec };
                run_part(isa, &part, sums, layout.stride);
            });
        }
        unit = end;
    }
}

fn run_part(isa: Isa, part: &Part<'_>, sums: &mut [f32], stride: usize) {
    let first = part.range.start / BLOCK * BLOCK;
    let width = (part.range.end - first).next_multiple_of(BLOCK);
    scratch::with(part.n * width, |scores: &mut [f32]| {
        score_keys(isa, part, scores, width);
        mask(part, scores, width);
        exponentials(isa, part, scores, width, sums, stride);
        weigh_values(isa, part, scores, width, sums, stride);
    });
}

simd_fn! {
    /// Scores of all blocks of the part, `[n, width]`.
    fn score_keys<S>(part: &Part<'_>, scores: &mut [f32], width: usize) {
        match (part.keys.bits, part.n) {
            (4, 1) => scores_of::<S, 4, 1>(part, scores, width),
            (4, 2) => scores_of::<S, 4, 2>(part, scores, width),
            (4, 3) => scores_of::<S, 4, 3>(part, scores, width),
            (4, _) => scores_of::<S, 4, 4>(part, scores, width),
            (8, 1) => scores_of::<S, 8, 1>(part, scores, width),
            (8, 2) => scores_of::<S, 8, 2>(part, scores, width),
            (8, 3) => scores_of::<S, 8, 3>(part, scores, width),
            (8, _) => scores_of::<S, 8, 4>(part, scores, width),
            (_, 1) => scores_of::<S, F32, 1>(part, scores, width),
            (_, 2) => scores_of::<S, F32, 2>(part, scores, width),
            (_, 3) => scores_of::<S, F32, 3>(part, scores, width),
            (_, _) => scores_of::<S, F32, 4>(part, scores, width),
        }
    }
}

/// q·(code − zero)·scale is summed as (Σ q·code − zero·Σ q)·scale.
#[inline(always)]
unsafe fn scores_of<S: Simd, const BITS: u32, const G: usize>(
    part: &Part<'_>,
    scores: &mut [f32],
    width: usize,
) {
    let (store, dims) = (part.keys, part.keys.padded);
    let first = part.range.start / BLOCK * BLOCK;
    assert!(scores.len() >= G * width && part.q.len() >= G * dims);
    let q = part.q.as_ptr();
    let q_sums: [f32; G] = std::array::from_fn(|g| part.q[g * dims..][..dims].iter().sum());
    for at in (0..width).step_by(S::LANES) {
        let (mut even, mut odd) = ([S::splat(0.0); G], [S::splat(0.0); G]);
        // SAFETY: whole blocks of keys are stored, with their scales.
        unsafe {
            for d in (0..dims).step_by(2) {
                let (a, b) = pair_of_keys::<S, BITS>(store, first + at, d);
                for g in 0..G {
                    even[g] = S::fma(S::splat(*q.add(g * dims + d)), a, even[g]);
                    odd[g] = S::fma(S::splat(*q.add(g * dims + d + 1)), b, odd[g]);
                }
            }
            for g in 0..G {
                let mut x = S::add(even[g], odd[g]);
                if BITS != F32 {
                    let zero = S::load(store.zeros.as_ptr().add(first + at));
                    x = S::fma(zero, S::splat(-q_sums[g]), x);
                    x = S::mul(x, S::load(store.scales.as_ptr().add(first + at)));
                }
                if let Some(cap) = part.spec.softcap {
                    x = S::mul(S::splat(cap), math::tanh::<S>(S::mul(x, S::splat(1.0 / cap))));
                }
                S::store(scores.as_mut_ptr().add(g * width + at), x);
            }
        }
    }
}

/// Sets the scores of keys outside the range, or masked as padding, to −∞.
fn mask(part: &Part<'_>, scores: &mut [f32], width: usize) {
    let first = part.range.start / BLOCK * BLOCK;
    let inside = part.range.start - first..part.range.end - first;
    for row in scores.chunks_exact_mut(width) {
        row[..inside.start].fill(f32::NEG_INFINITY);
        row[inside.end..].fill(f32::NEG_INFINITY);
        if let Some(seen) = part.spec.pad_mask {
            for (x, &seen) in row[inside.clone()].iter_mut().zip(&seen[part.range.clone()]) {
                *x = if seen { *x } else { f32::NEG_INFINITY };
            }
        }
    }
}

simd_fn! {
    /// Replaces scores by exponentials times the scale of the key's value row, and notes the
    /// maximum, the sum of exponentials and the sum of what the zero points take off.
    fn exponentials<S>(
        part: &Part<'_>,
        scores: &mut [f32],
        width: usize,
        sums: &mut [f32],
        stride: usize,
    ) {
        let first = part.range.start / BLOCK * BLOCK;
        for (row, sums) in scores.chunks_exact_mut(width).zip(sums.chunks_exact_mut(stride)) {
            let max = max_of::<S>(row);
            (sums[0], sums[1], sums[2]) = (max, 0.0, 0.0);
            if max == f32::NEG_INFINITY {
                row.fill(0.0);
                continue;
            }
            let (shift, p) = (S::splat(-max), row.as_mut_ptr());
            map1!(S, width, p, p, |x| math::exp::<S>(S::add(x, shift)));
            sums[1] = sum1!(S, width, p, |acc, x| S::add(acc, x));
            if part.values.bits != F32 {
                let mut taken = S::splat(0.0);
                for i in (0..width).step_by(S::LANES) {
                    let scale = S::load(part.values.scales.as_ptr().add(first + i));
                    let weight = S::mul(S::load(p.add(i)), scale);
                    taken = S::fma(weight, S::load(part.values.zeros.as_ptr().add(first + i)), taken);
                    S::store(p.add(i), weight);
                }
                sums[2] = S::reduce_add(taken);
            }
        }
    }
}

simd_fn! {
    /// Sums of the value rows with their weights, into the heads' sums from index 16.
    fn weigh_values<S>(
        part: &Part<'_>,
        weights: &[f32],
        width: usize,
        sums: &mut [f32],
        stride: usize,
    ) {
        match (part.values.bits, part.n) {
            (4, 1) => weigh::<S, 4, 1>(part, weights, width, sums, stride),
            (4, 2) => weigh::<S, 4, 2>(part, weights, width, sums, stride),
            (4, 3) => weigh::<S, 4, 3>(part, weights, width, sums, stride),
            (4, _) => weigh::<S, 4, 4>(part, weights, width, sums, stride),
            (8, 1) => weigh::<S, 8, 1>(part, weights, width, sums, stride),
            (8, 2) => weigh::<S, 8, 2>(part, weights, width, sums, stride),
            (8, 3) => weigh::<S, 8, 3>(part, weights, width, sums, stride),
            (8, _) => weigh::<S, 8, 4>(part, weights, width, sums, stride),
            (_, 1) => weigh::<S, F32, 1>(part, weights, width, sums, stride),
            (_, 2) => weigh::<S, F32, 2>(part, weights, width, sums, stride),
            (_, 3) => weigh::<S, F32, 3>(part, weights, width, sums, stride),
            (_, _) => weigh::<S, F32, 4>(part, weights, width, sums, stride),
        }
    }
}

#[inline(always)]
unsafe fn weigh<S: Simd, const BITS: u32, const G: usize>(
    part: &Part<'_>,
    weights: &[f32],
    width: usize,
    sums: &mut [f32],
    stride: usize,
) {
    let first = part.range.start / BLOCK * BLOCK;
    assert!(weights.len() >= G * width && sums.len() >= G * stride);
    assert!(stride >= 16 + part.values.padded);
    let taken: [f32; G] = std::array::from_fn(|g| sums[g * stride + 2]);
    for group in (0..part.values.padded).step_by(GROUP) {
        for d in (group..group + GROUP / 2).step_by(S::LANES) {
            let (mut low, mut high) = ([S::splat(0.0); G], [S::splat(0.0); G]);
            // SAFETY: the rows of the range are stored; the sums have room for all dimensions.
            unsafe {
                for key in part.range.clone() {
                    let (a, b) = pair_of_values::<S, BITS>(part.values, key, d);
                    for g in 0..G {
                        let weight = S::splat(*weights.as_ptr().add(g * width + key - first));
                        low[g] = S::fma(weight, a, low[g]);
                        high[g] = S::fma(weight, b, high[g]);
                    }
                }
                for g in 0..G {
                    let to = sums.as_mut_ptr().add(g * stride + 16 + d);
                    let taken = S::splat(taken[g]);
                    S::store(to, S::sub(low[g], taken));
                    S::store(to.add(GROUP / 2), S::sub(high[g], taken));
                }
            }
        }
    }
}

simd_fn! {
    /// Combines the threads' sums, weighted by their maxima, and divides.
    fn merge<S>(
        sums: &[f32],
        parts: usize,
        spec: AttentionSpec<'_>,
        layout: &Layout,
        out: &mut [f32],
    ) {
        for (head, out) in out.chunks_exact_mut(spec.head_dim).enumerate() {
            let sums_of = |p: usize| &sums[(p * spec.n_heads + head) * layout.stride..][..layout.stride];
            let max = (0..parts).map(|p| sums_of(p)[0]).fold(f32::NEG_INFINITY, f32::max);
            out.fill(0.0);
            if max == f32::NEG_INFINITY {
                continue;
            }
            let factor = |p: usize| (sums_of(p)[0] - max).exp();
            let seen = |&p: &usize| sums_of(p)[0] != f32::NEG_INFINITY;
            let total: f32 = (0..parts).filter(seen).map(|p| sums_of(p)[1] * factor(p)).sum();
            for p in (0..parts).filter(seen) {
                let weight = factor(p) / total;
                for (y, x) in out.iter_mut().zip(&sums_of(p)[16..]) {
                    *y += weight * x;
                }
            }
        }
    }
}
