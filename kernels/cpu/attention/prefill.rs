//! Many queries: blocks of keys and values pass in turn, with a running softmax
//! (FlashAttention, Dao et al. 2022, algorithm 1).

use super::AttentionSpec;
use super::load::{F32, pair_of_keys, pair_of_values};
use crate::kv::{GROUP, KvCache, Store};
use crate::pool::ThreadPool;
use crate::sgemm::{Block, gemm_block};
use crate::shared::SharedMut;
use crate::simd::{Simd, map1, simd_fn, sum1};
use crate::softmax::max_of;
use crate::{Isa, math, scratch};
use std::ops::Range;

/// Queries of a task.
const QUERIES: usize = 48;
/// Queries whose scores are computed together.
const STRIP: usize = 12;
/// Keys of a block, a multiple of the cache's blocks.
const KEYS: usize = 128;

/// What the tasks share.
struct Attention<'a> {
    isa: Isa,
    q: &'a [f32],
    cache: &'a KvCache,
    past_len: usize,
    spec: AttentionSpec<'a>,
    out: SharedMut<'a, f32>,
}

/// A block of keys `[padded dim, KEYS]` and values `[KEYS, padded dim]` as f32.
struct KvBlock<'a> {
    first: usize,
    len: usize,
    keys: &'a mut [f32],
    values: &'a mut [f32],
    value_dims: usize,
}

/// The running maximum and sum of the rows of a task.
struct Running<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

pub(super) fn prefill(
    pool: &ThreadPool,
    isa: Isa,
    q: &[f32],
    cache: &KvCache,
    past_len: usize,
    spec: AttentionSpec<'_>,
    out: &mut [f32],
) {
    let s = q.len() / (spec.n_heads * spec.head_dim);
    let job = Attention { isa, q, cache, past_len, spec, out: SharedMut::new(out) };
    let n_blocks = s.div_ceil(QUERIES);
    // The last queries see the most keys: they go first.
    pool.for_each_dynamic(n_blocks * spec.n_kv_heads, 1, |tasks| {
        for task in tasks {
            let block = n_blocks - 1 - task / spec.n_kv_heads;
            let rows = block * QUERIES..((block + 1) * QUERIES).min(s);
            job.task(task % spec.n_kv_heads, rows);
        }
    });
}

impl Attention<'_> {
    fn width(&self) -> usize {
        self.spec.n_heads * self.spec.head_dim
    }

    /// The keys that some query of `rows` sees.
    fn visible(&self, rows: &Range<usize>) -> Range<usize> {
        let n = self.cache.len();
        let first = self.spec.visible(self.past_len + rows.start, n);
        first.start..self.spec.visible(self.past_len + rows.end - 1, n).end
    }

    /// All query heads of key/value head `head` for the queries `rows`.
    fn task(&self, head: usize, rows: Range<usize>) {
        let (group, dim) = (self.spec.group(), self.spec.head_dim);
        for row in rows.clone() {
            let start = row * self.width() + head * group * dim;
            // SAFETY: this task alone writes these rows of these heads.
            unsafe { self.out.part(start..start + group * dim) }.fill(0.0);
        }
        let (keys, values) = (self.cache.head_keys(head), self.cache.head_values(head));
        let n = group * rows.len();
        scratch::with(2 * n, |running: &mut [f32]| {
            let (max, sum) = running.split_at_mut(n);
            max.fill(f32::NEG_INFINITY);
            sum.fill(0.0);
            let mut running = Running { max, sum };
            scratch::with(KEYS * (keys.padded + values.padded), |buffer: &mut [f32]| {
                let (key_part, value_part) = buffer.split_at_mut(KEYS * keys.padded);
                let visible = self.visible(&rows);
                let start = visible.start / KEYS * KEYS;
                for first in (start..visible.end).step_by(KEYS) {
                    let len = KEYS.min(visible.end - first);
                    let (keys_f32, values_f32) = (&mut *key_part, &mut *value_part);
                    let value_dims = values.padded;
                    let mut block =
                        KvBlock { first, len, keys: keys_f32, values: values_f32, value_dims };
                    dequantize(self.isa, keys, values, &mut block);
                    self.block(head, &rows, &block, &mut running);
                }
            });
            self.divide(head, &rows, &running);
        });
    }

    /// Takes one block of keys into all rows of the task.
    fn block(&self, head: usize, rows: &Range<usize>, kv: &KvBlock<'_>, running: &mut Running<'_>) {
        let group = self.spec.group();
        scratch::with(STRIP * KEYS, |scores: &mut [f32]| {
            for g in 0..group {
                for start in rows.clone().step_by(STRIP) {
                    let strip = start..(start + STRIP).min(rows.end);
                    let at = g * rows.len() + start - rows.start;
                    let at = at..at + strip.len();
                    let mut running =
                        Running { max: &mut running.max[at.clone()], sum: &mut running.sum[at] };
                    self.strip(head * group + g, strip, kv, &mut running, scores);
                }
            }
        });
    }

    /// Takes the keys of a block that some query of `rows` sees into the rows of one query head.
    fn strip(
        &self,
        head: usize,
        rows: Range<usize>,
        kv: &KvBlock<'_>,
        running: &mut Running<'_>,
        scores: &mut [f32],
    ) {
        let visible = self.visible(&rows);
        let end = visible.end.min(kv.first + kv.len);
        if end <= kv.first || visible.start >= end {
            return;
        }
        let (n, m, dim, width) = (end - kv.first, rows.len(), self.spec.head_dim, self.width());
        let out = self.out.ptr_at(rows.start * width + head * dim);
        let product = Block {
            k: dim,
            m,
            n,
            a: self.q[rows.start * width + head * dim..].as_ptr(),
            a_row: width,
            a_col: 1,
            b: kv.keys.as_ptr(),
            ldb: KEYS,
            c: scores.as_mut_ptr(),
            ldc: KEYS,
            alpha: self.spec.scale,
            beta: 0.0,
        };
        let weighted = Block {
            k: n,
            n: dim,
            a: scores.as_ptr(),
            a_row: KEYS,
            b: kv.values.as_ptr(),
            ldb: kv.value_dims,
            c: out,
            ldc: width,
            alpha: 1.0,
            beta: 1.0,
            ..product
        };
        // SAFETY: the buffers hold the shapes, and this task alone writes these rows.
        unsafe {
            gemm_block(self.isa, &product);
            self.mask(&rows, kv.first, n, scores);
            let rows = Rows { out, stride: width, dim, n };
            update(self.isa, scores, running, &rows);
            gemm_block(self.isa, &weighted);
        }
    }

    /// Applies the soft cap, and sets the scores of keys that a row does not see to −∞.
    fn mask(&self, rows: &Range<usize>, first: usize, n: usize, scores: &mut [f32]) {
        let n_keys = self.cache.len();
        for (row, scores) in rows.clone().zip(scores.chunks_exact_mut(KEYS)) {
            let scores = &mut scores[..n];
            if let Some(cap) = self.spec.softcap {
                soft_cap(self.isa, cap, scores);
            }
            let seen = self.spec.visible(self.past_len + row, n_keys);
            let start = seen.start.saturating_sub(first).min(n);
            let end = seen.end.saturating_sub(first).clamp(start, n);
            scores[..start].fill(f32::NEG_INFINITY);
            scores[end..].fill(f32::NEG_INFINITY);
            if let Some(mask) = self.spec.pad_mask {
                for (x, &seen) in scores.iter_mut().zip(&mask[first..]) {
                    *x = if seen { *x } else { f32::NEG_INFINITY };
                }
            }
        }
    }

    /// Divides the sums of values by the sums of exponentials.
    fn divide(&self, head: usize, rows: &Range<usize>, running: &Running<'_>) {
        let (group, dim) = (self.spec.group(), self.spec.head_dim);
        for (i, &sum) in running.sum.iter().enumerate() {
            let (g, row) = (i / rows.len(), rows.start + i % rows.len());
            let start = row * self.width() + (head * group + g) * dim;
            let factor = if sum > 0.0 { 1.0 / sum } else { 0.0 };
            // SAFETY: this task alone writes these rows of these heads.
            unsafe { self.out.part(start..start + dim) }.iter_mut().for_each(|y| *y *= factor);
        }
    }
}

/// The output rows of a strip.
struct Rows {
    out: *mut f32,
    stride: usize,
    dim: usize,
    n: usize,
}

simd_fn! {
    /// c · tanh(x / c).
    pub(super) fn soft_cap<S>(cap: f32, scores: &mut [f32]) {
        let (p, inverse) = (scores.as_mut_ptr(), S::splat(1.0 / cap));
        map1!(S, scores.len(), p, p, |x| {
            S::mul(S::splat(cap), math::tanh::<S>(S::mul(x, inverse)))
        });
    }
}

simd_fn! {
    /// Turns the scores into exponentials and brings the running sums to the new maxima.
    fn update<S>(scores: &mut [f32], running: &mut Running<'_>, rows: &Rows) {
        let state = running.max.iter_mut().zip(running.sum.iter_mut());
        for (r, ((max, sum), scores)) in state.zip(scores.chunks_exact_mut(KEYS)).enumerate() {
            let scores = &mut scores[..rows.n];
            let new = max_of::<S>(scores).max(*max);
            if new == f32::NEG_INFINITY {
                scores.fill(0.0);
                continue;
            }
            let (p, shift) = (scores.as_mut_ptr(), S::splat(-new));
            map1!(S, rows.n, p, p, |x| math::exp::<S>(S::add(x, shift)));
            let added = sum1!(S, rows.n, p, |acc, x| S::add(acc, x));
            if *max < new {
                let factor = (*max - new).exp();
                *sum *= factor;
                let out = rows.out.add(r * rows.stride);
                map1!(S, rows.dim, out, out, |y| S::mul(y, S::splat(factor)));
            }
            (*max, *sum) = (new, *sum + added);
        }
    }
}

simd_fn! {
    /// Fills a block with the keys and values as f32.
    fn dequantize<S>(keys: &Store, values: &Store, block: &mut KvBlock<'_>) {
        match keys.bits {
            4 => read_keys::<S, 4>(keys, block),
            8 => read_keys::<S, 8>(keys, block),
            _ => read_keys::<S, F32>(keys, block),
        }
        match values.bits {
            4 => read_values::<S, 4>(values, block),
            8 => read_values::<S, 8>(values, block),
            _ => read_values::<S, F32>(values, block),
        }
    }
}

#[inline(always)]
unsafe fn read_keys<S: Simd, const BITS: u32>(store: &Store, block: &mut KvBlock<'_>) {
    assert!(block.keys.len() >= store.padded * KEYS && block.len <= KEYS);
    for at in (0..block.len).step_by(S::LANES) {
        let key = block.first + at;
        // SAFETY: whole blocks of 16 keys are stored, with their scales.
        unsafe {
            let (mut scale, mut zero) = (S::splat(1.0), S::splat(0.0));
            if BITS != F32 {
                scale = S::load(store.scales.as_ptr().add(key));
                zero = S::load(store.zeros.as_ptr().add(key));
            }
            for d in (0..store.padded).step_by(2) {
                let (a, b) = pair_of_keys::<S, BITS>(store, key, d);
                let to = block.keys.as_mut_ptr().add(d * KEYS + at);
                S::store(to, S::mul(S::sub(a, zero), scale));
                S::store(to.add(KEYS), S::mul(S::sub(b, zero), scale));
            }
        }
    }
}

#[inline(always)]
unsafe fn read_values<S: Simd, const BITS: u32>(store: &Store, block: &mut KvBlock<'_>) {
    assert!(block.values.len() >= store.padded * block.len);
    for at in 0..block.len {
        let key = block.first + at;
        let (mut scale, mut zero) = (S::splat(1.0), S::splat(0.0));
        if BITS != F32 {
            scale = S::splat(store.scales[key]);
            zero = S::splat(store.zeros[key]);
        }
        for group in (0..store.padded).step_by(GROUP) {
            for d in (group..group + GROUP / 2).step_by(S::LANES) {
                // SAFETY: the row is stored, and the block has room for it.
                unsafe {
                    let (a, b) = pair_of_values::<S, BITS>(store, key, d);
                    let to = block.values.as_mut_ptr().add(at * store.padded + d);
                    S::store(to, S::mul(S::sub(a, zero), scale));
                    S::store(to.add(GROUP / 2), S::mul(S::sub(b, zero), scale));
                }
            }
        }
    }
}
