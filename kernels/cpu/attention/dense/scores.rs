//! Products with all keys of a head, and the softmax over them.

use super::layout::HeadLayout;
use super::span::Span;
use super::{AttentionInputs, DenseAttention};
use crate::attention::prefill::soft_cap;
use crate::pool::ThreadPool;
use crate::sgemm::{Block, PANEL, gemm_block, pack_panel};
use crate::shared::SharedMut;
use crate::simd::simd_fn;
use crate::softmax::max_of;
use crate::{Isa, math};
use std::ops::Range;

/// Rows of B that a product goes through at a time: 128 x 64 values fit the first cache.
const DEPTH: usize = 128;

/// The transpose of every head, in panels: `[batch, heads, rows / PANEL, dim, PANEL]`.
#[derive(Clone, Copy)]
pub(super) struct Transposed<'a> {
    data: &'a [f32],
    layout: HeadLayout,
}

impl<'a> Transposed<'a> {
    /// Values that the transposes of a tensor take.
    pub(super) fn len(layout: &HeadLayout) -> usize {
        layout.batch * layout.heads * layout.rows.div_ceil(PANEL) * layout.dim * PANEL
    }

    /// Packs `x` into `data`, which has the right length.
    pub(super) fn pack(
        pool: &ThreadPool,
        isa: Isa,
        x: &[f32],
        layout: HeadLayout,
        data: &'a mut [f32],
    ) -> Self {
        let (n_panels, len) = (layout.rows.div_ceil(PANEL), layout.dim * PANEL);
        let out = SharedMut::new(&mut *data);
        pool.for_each_chunk(layout.batch * layout.heads * n_panels, 4, |panels| {
            for i in panels {
                let (head, first) = (i / n_panels, i % n_panels * PANEL);
                let b = layout.head(x, head / layout.heads, head % layout.heads).t();
                let cols = first..(first + PANEL).min(layout.rows);
                // SAFETY: each panel is visited once.
                let panel = unsafe { out.part(i * len..(i + 1) * len) };
                pack_panel(isa, b, 0..layout.dim, cols, panel);
            }
        });
        Self { data, layout }
    }

    /// c = alpha · a · headᵀ for the rows `keys` of the head.
    ///
    /// # Safety
    /// As [`gemm_block`]: `a` `[m, dim]` and `c` `[m, keys]`, by pointers and row steps.
    unsafe fn product(
        &self,
        isa: Isa,
        (batch, head): (usize, usize),
        (a, a_row): (*const f32, usize),
        (c, ldc): (*mut f32, usize),
        (m, keys, alpha): (usize, Range<usize>, f32),
    ) {
        let dim = self.layout.dim;
        let n_panels = self.layout.rows.div_ceil(PANEL);
        let first = (batch * self.layout.heads + head) * n_panels;
        let mut key = keys.start;
        while key < keys.end {
            let (panel, column) = (key / PANEL, key % PANEL);
            let n = (PANEL - column).min(keys.end - key);
            let b = &self.data[(first + panel) * dim * PANEL + column..];
            let c = c.wrapping_add(key - keys.start);
            let (k, a_col, b, ldb) = (dim, 1, b.as_ptr(), PANEL);
            // SAFETY: the caller's promise; the panel holds these columns.
            unsafe {
                gemm_block(
                    isa,
                    &Block { k, m, n, a, a_row, a_col, b, ldb, c, ldc, alpha, beta: 0.0 },
                );
            }
            key += n;
        }
    }
}

/// The scores of a block of queries of one head, `[queries, keys]` with `span.step()` elements
/// from row to row, and which head it is.
pub(super) struct Head<'a> {
    pub(super) isa: Isa,
    pub(super) spec: &'a DenseAttention<'a>,
    pub(super) span: &'a Span<'a>,
    pub(super) batch: usize,
    pub(super) head: usize,
}

impl Head<'_> {
    /// The key/value head that is read.
    pub(super) fn kv_head(&self) -> usize {
        self.head / self.spec.group()
    }

    /// scores = alpha · x · otherᵀ wherever something is seen, for the rows of `x` (the queries,
    /// or what is laid out like them) and the transposes `other` of keys or values.
    pub(super) fn times_transposed(
        &self,
        alpha: f32,
        x: &[f32],
        layout: &HeadLayout,
        other: &Transposed<'_>,
        scores: &mut [f32],
    ) {
        let (step, at) = (self.span.step(), (self.batch, self.kv_head()));
        assert!(scores.len() >= self.span.rows.len() * step, "room for the scores");
        self.span.by_queries(|rows, keys| {
            let a = x[layout.start(self.batch, self.head, rows.start)..].as_ptr();
            let c = (rows.start - self.span.rows.start) * step + keys.start - self.span.keys.start;
            let c = scores[c..].as_mut_ptr();
            // SAFETY: `check` compared the lengths, and the scores have room for the block.
            unsafe {
                let shape = (rows.len(), keys, alpha);
                other.product(self.isa, at, (a, layout.step()), (c, step), shape);
            }
        });
    }

    /// out += alpha · scores · x for the rows of `x`, keys or values.
    ///
    /// # Safety
    /// `out` points to the first row of the block, with `out_step` elements from row to row, which
    /// nobody else touches.
    pub(super) unsafe fn scores_times(
        &self,
        alpha: f32,
        scores: &[f32],
        x: &[f32],
        layout: &HeadLayout,
        (out, out_step): (*mut f32, usize),
    ) {
        let step = self.span.step();
        self.span.by_queries(|rows, keys| {
            let row = rows.start - self.span.rows.start;
            for first in keys.clone().step_by(DEPTH) {
                let a = &scores[row * step + first - self.span.keys.start..];
                let b = &x[layout.start(self.batch, self.kv_head(), first)..];
                let block = Block {
                    k: DEPTH.min(keys.end - first),
                    m: rows.len(),
                    n: layout.dim,
                    a: a.as_ptr(),
                    a_row: step,
                    a_col: 1,
                    b: b.as_ptr(),
                    ldb: layout.step(),
                    c: out.wrapping_add(row * out_step),
                    ldc: out_step,
                    alpha,
                    beta: 1.0,
                };
                // SAFETY: `check` compared the lengths; the rest is the caller's promise.
                unsafe { gemm_block(self.isa, &block) };
            }
        });
    }

    /// out += alpha · scoresᵀ · x for the rows of `x`, which is laid out like the queries.
    ///
    /// # Safety
    /// `out` points to the row of key 0, with `out_step` elements from row to row; nobody else
    /// touches the rows of the keys that the block sees.
    pub(super) unsafe fn transposed_times(
        &self,
        alpha: f32,
        scores: &[f32],
        x: &[f32],
        layout: &HeadLayout,
        (out, out_step): (*mut f32, usize),
    ) {
        let step = self.span.step();
        self.span.by_keys(|rows, keys| {
            let row = rows.start - self.span.rows.start;
            let block = Block {
                k: rows.len(),
                m: keys.len(),
                n: layout.dim,
                a: scores[row * step + keys.start - self.span.keys.start..].as_ptr(),
                a_row: 1,
                a_col: step,
                b: x[layout.start(self.batch, self.head, rows.start)..].as_ptr(),
                ldb: layout.step(),
                c: out.wrapping_add(keys.start * out_step),
                ldc: out_step,
                alpha,
                beta: 1.0,
            };
            // SAFETY: as above.
            unsafe { gemm_block(self.isa, &block) };
        });
    }

    /// Turns products into e^(score − the row's maximum), 0 where a key is not seen, and gives the
    /// sum of each row. Where the scores are capped, `slopes` gets the derivative of the cap.
    pub(super) fn exponentials(
        &self,
        scores: &mut [f32],
        mut slopes: Option<&mut [f32]>,
        sums: &mut [f32],
    ) {
        let step = self.span.step();
        let rows = self.span.rows.clone().zip(scores.chunks_exact_mut(step)).zip(sums);
        for (i, ((row, scores), sum)) in rows.enumerate() {
            let seen = self.span.columns(row);
            let scores = only(scores, &seen, self.span.keys.len());
            if let Some(cap) = self.spec.softcap {
                soft_cap(self.isa, cap, scores);
                if let Some(slopes) = slopes.as_deref_mut() {
                    cap_slopes(self.isa, cap, scores, &mut slopes[i * step..][seen.clone()]);
                }
            }
            if let Some(mask) = &self.spec.mask {
                let keys = self.span.keys.start + seen.start..self.span.keys.start + seen.end;
                mask.apply(self.isa, [self.batch, self.head, row], keys, scores);
            }
            *sum = exponentials(self.isa, scores);
        }
    }
}

/// The columns `seen` of a row; the others among its first `n` become 0.
pub(super) fn only<'a>(row: &'a mut [f32], seen: &Range<usize>, n: usize) -> &'a mut [f32] {
    row[..seen.start].fill(0.0);
    row[seen.end..n].fill(0.0);
    &mut row[seen.clone()]
}

/// The scores scale · q·kᵀ of a block.
pub(super) fn scores(
    head: &Head<'_>,
    x: &AttentionInputs<'_>,
    keys: &Transposed<'_>,
    out: &mut [f32],
) {
    head.times_transposed(head.spec.scale, x.q, &head.spec.q, keys, out);
}

simd_fn! {
    /// 1 − (y / c)², the derivative of y = c · tanh(x / c).
    fn cap_slopes<S>(cap: f32, capped: &[f32], slopes: &mut [f32]) {
        let inverse = 1.0 / cap;
        for (slope, y) in slopes.iter_mut().zip(capped) {
            let t = y * inverse;
            *slope = 1.0 - t * t;
        }
    }
}

simd_fn! {
    /// e^(x − max) in place, and the sum of it; zeros where all are −∞.
    fn exponentials<S>(x: &mut [f32]) -> f32 {
        let max = max_of::<S>(x);
        if max == f32::NEG_INFINITY {
            x.fill(0.0);
            return 0.0;
        }
        let (n, p, shift) = (x.len(), x.as_mut_ptr(), S::splat(-max));
        let mut sums = [S::splat(0.0); 2];
        let whole = n / (2 * S::LANES) * (2 * S::LANES);
        for i in (0..whole).step_by(2 * S::LANES) {
            for (half, sum) in sums.iter_mut().enumerate() {
                let p = p.add(i + half * S::LANES);
                let y = math::exp::<S>(S::add(S::load(p), shift));
                S::store(p, y);
                *sum = S::add(*sum, y);
            }
        }
        for i in (whole..n).step_by(S::LANES) {
            let lanes = S::first((n - i).min(S::LANES));
            let y = math::exp::<S>(S::add(S::load_m(p.add(i), lanes), shift));
            S::store_m(p.add(i), y, lanes);
            sums[0] = S::add(sums[0], S::load_m(p.add(i), lanes));
        }
        S::reduce_add(S::add(sums[0], sums[1]))
    }
}
