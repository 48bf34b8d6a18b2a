//! The forward pass.

use super::scores::{Head, Transposed, scores};
use super::span::{Span, block_len};
use super::{AttentionInputs, DenseAttention};
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::{Isa, scratch};
use std::ops::Range;

/// y = softmax(scale · q·kᵀ + mask) · v, head by head. A query that sees no key gives zeros.
///
/// # Panics
/// When the lengths and layouts disagree.
pub fn attention_forward(
    pool: &ThreadPool,
    isa: Isa,
    spec: &DenseAttention<'_>,
    x: AttentionInputs<'_>,
    y: &mut [f32],
) {
    spec.check(&x, y);
    if spec.is_empty() {
        return y.fill(0.0);
    }
    scratch::with(Transposed::len(&spec.k), |packed: &mut [f32]| {
        let keys = Transposed::pack(pool, isa, x.k, spec.k, packed);
        let job = Forward { isa, spec, x, keys, y: SharedMut::new(y) };
        let (len, n_heads) = (block_len(spec.k.rows), spec.q.batch * spec.k.heads);
        let n_blocks = spec.q.rows.div_ceil(len);
        // The last queries see the most keys: they go first.
        pool.for_each_dynamic(n_blocks * n_heads, 1, |tasks| {
            for task in tasks {
                let first = (n_blocks - 1 - task / n_heads) * len;
                job.task(task % n_heads, first..(first + len).min(spec.q.rows));
            }
        });
    });
}

struct Forward<'a> {
    isa: Isa,
    spec: &'a DenseAttention<'a>,
    x: AttentionInputs<'a>,
    keys: Transposed<'a>,
    y: SharedMut<'a, f32>,
}

impl Forward<'_> {
    /// The queries `rows` of all query heads of a key/value head (of all sequences, counted on).
    fn task(&self, kv_head: usize, rows: Range<usize>) {
        let (spec, group) = (self.spec, self.spec.group());
        let (batch, kv_head) = (kv_head / spec.k.heads, kv_head % spec.k.heads);
        let span = Span::new(spec, rows);
        let n_rows = span.rows.len();
        scratch::with(n_rows * (span.step() + 1), |buffer: &mut [f32]| {
            let (products, sums) = buffer.split_at_mut(n_rows * span.step());
            for head in kv_head * group..(kv_head + 1) * group {
                let head = Head { isa: self.isa, spec, span: &span, batch, head };
                scores(&head, &self.x, &self.keys, products);
                head.exponentials(products, None, sums);
                self.mix(&head, products, sums);
            }
        });
    }

    /// The values weighted by the exponentials, over the sums of those.
    fn mix(&self, head: &Head<'_>, weights: &[f32], sums: &[f32]) {
        let (layout, rows) = (&self.spec.y, &head.span.rows);
        let start = |row| layout.start(head.batch, head.head, row);
        // SAFETY: this task alone writes these rows of this head.
        let y = |row| unsafe { self.y.part(start(row)..start(row) + layout.dim) };
        rows.clone().for_each(|row| y(row).fill(0.0));
        let out = (self.y.ptr_at(start(rows.start)), layout.step());
        // SAFETY: as above.
        unsafe { head.scores_times(1.0, weights, self.x.v, &self.spec.v, out) };
        for (row, &sum) in rows.clone().zip(sums) {
            let factor = if sum > 0.0 { 1.0 / sum } else { 0.0 };
            y(row).iter_mut().for_each(|y| *y *= factor);
        }
    }
}
