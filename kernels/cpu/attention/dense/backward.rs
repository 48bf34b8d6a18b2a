//! The gradient.

use super::scores::{Head, Transposed, only, scores};
use super::span::{Span, block_len};
use super::{AttentionInputs, DenseAttention};
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{Simd, map2, simd_fn};
use crate::{Isa, scratch};

/// Tasks a thread should have at least where their number can't be a multiple of the threads'.
const TASKS_A_THREAD: usize = 6;
/// Values below which a sum is not worth another thread.
const MIN_VALUES: usize = 16_384;

/// Where the gradients go, each laid out as what it is the gradient of.
#[derive(Debug)]
pub struct AttentionGradients<'a> {
    /// Of the queries.
    pub dq: &'a mut [f32],
    /// Of the keys, summed over the query heads that read a key head.
    pub dk: &'a mut [f32],
    /// Of the values, summed likewise.
    pub dv: &'a mut [f32],
}

/// The gradients of [`super::attention_forward`] from that of its result, `dy`.
///
/// With P the softmax of the scores S, y = P·v: dv = Pᵀ·dy; dP = dy·vᵀ;
/// dS = P ∘ (dP − rowsum(P ∘ dP)) (times the cap's derivative); dq = scale · dS·k;
/// dk = scale · dSᵀ·q. P is computed anew from q and k.
///
/// The order in which the parts of dk and dv are added up, and so their rounding, depends on the
/// number of threads.
///
/// # Panics
/// When the lengths and layouts disagree.
pub fn attention_backward(
    pool: &ThreadPool,
    isa: Isa,
    spec: &DenseAttention<'_>,
    x: AttentionInputs<'_>,
    dy: &[f32],
    out: AttentionGradients<'_>,
) {
    spec.check(&x, dy);
    let lengths = (out.dq.len(), out.dk.len(), out.dv.len());
    assert!(lengths == (x.q.len(), x.k.len(), x.v.len()), "lengths of the gradients");
    if spec.is_empty() {
        [out.dq, out.dk, out.dv].into_iter().for_each(|d| d.fill(0.0));
        return;
    }
    let n_blocks = spec.q.rows.div_ceil(block_len(spec.k.rows));
    let n_heads = spec.k.batch * spec.k.heads;
    let n_splits = splits(n_heads, n_blocks, pool.n_threads());
    let (n_k, n_v) = (x.k.len(), x.v.len());
    let (key_len, value_len) = (Transposed::len(&spec.k), Transposed::len(&spec.v));
    scratch::with(key_len + value_len, |packed: &mut [f32]| {
        let (keys, values) = packed.split_at_mut(key_len);
        let keys = Transposed::pack(pool, isa, x.k, spec.k, keys);
        let values = Transposed::pack(pool, isa, x.v, spec.v, values);
        scratch::with((n_splits - 1) * (n_k + n_v), |parts: &mut [f32]| {
            let (dk_parts, dv_parts) = parts.split_at_mut((n_splits - 1) * n_k);
            let job = Backward {
                isa,
                spec,
                x,
                dy,
                keys,
                values,
                n_splits,
                dq: SharedMut::new(out.dq),
                dk: Parts { first: SharedMut::new(out.dk), rest: SharedMut::new(dk_parts) },
                dv: Parts { first: SharedMut::new(out.dv), rest: SharedMut::new(dv_parts) },
            };
            pool.for_each_dynamic(n_heads * n_splits, 1, |tasks| {
                tasks.for_each(|task| job.task(task % n_heads, task / n_heads));
            });
            if n_splits > 1 {
                job.dk.add_up(pool, isa, n_k, n_splits);
                job.dv.add_up(pool, isa, n_v, n_splits);
            }
        });
    });
}

/// How many tasks share the queries of a head, each with its own sums of dk and dv: 1 where the
/// heads alone keep the threads busy.
fn splits(n_heads: usize, n_blocks: usize, n_threads: usize) -> usize {
    let is_enough = |splits: &usize| {
        let n = n_heads * splits;
        n.is_multiple_of(n_threads) || n >= TASKS_A_THREAD * n_threads
    };
    (1..n_blocks).find(is_enough).unwrap_or(n_blocks.max(1))
}

/// A gradient that several tasks add to: the first to the result, the others to copies.
#[derive(Clone, Copy)]
struct Parts<'a> {
    first: SharedMut<'a, f32>,
    rest: SharedMut<'a, f32>,
}

impl Parts<'_> {
    /// Element `at` of the copy of split `split`, for tensors of `len` elements.
    fn ptr(&self, split: usize, len: usize, at: usize) -> *mut f32 {
        match split {
            0 => self.first.ptr_at(at),
            _ => self.rest.ptr_at((split - 1) * len + at),
        }
    }

    /// Adds the copies to the result.
    fn add_up(&self, pool: &ThreadPool, isa: Isa, len: usize, n_splits: usize) {
        pool.for_each_chunk(len, MIN_VALUES, |range| {
            // SAFETY: the ranges of the threads are disjoint, and nobody else uses the sums now.
            let sum = unsafe { self.first.part(range.clone()) };
            for split in 0..n_splits - 1 {
                let at = split * len;
                // SAFETY: as above.
                add(isa, unsafe { self.rest.part(at + range.start..at + range.end) }, sum);
            }
        });
    }
}

struct Backward<'a> {
    isa: Isa,
    spec: &'a DenseAttention<'a>,
    x: AttentionInputs<'a>,
    dy: &'a [f32],
    keys: Transposed<'a>,
    values: Transposed<'a>,
    n_splits: usize,
    dq: SharedMut<'a, f32>,
    dk: Parts<'a>,
    dv: Parts<'a>,
}

/// What a task holds of a block of queries: probabilities, their gradients, slopes of the cap.
struct Buffers<'a> {
    weights: &'a mut [f32],
    gradients: &'a mut [f32],
    slopes: Option<&'a mut [f32]>,
    sums: &'a mut [f32],
}

impl Backward<'_> {
    /// Every `n_splits`th block of queries of a key/value head (of all sequences, counted on).
    fn task(&self, kv_head: usize, split: usize) {
        let spec = self.spec;
        let (batch, kv_head) = (kv_head / spec.k.heads, kv_head % spec.k.heads);
        let dk = self.dk.ptr(split, self.x.k.len(), spec.k.start(batch, kv_head, 0));
        let dv = self.dv.ptr(split, self.x.v.len(), spec.v.start(batch, kv_head, 0));
        for (out, layout) in [(dk, &spec.k), (dv, &spec.v)] {
            for row in 0..layout.rows {
                // SAFETY: this task alone writes this head of this copy.
                let row = unsafe {
                    std::slice::from_raw_parts_mut(out.add(row * layout.step()), layout.dim)
                };
                row.fill(0.0);
            }
        }
        let len = block_len(spec.k.rows);
        for first in (split * len..spec.q.rows).step_by(self.n_splits * len) {
            let span = Span::new(spec, first..(first + len).min(spec.q.rows));
            self.block(&span, (batch, kv_head), dk, dv);
        }
    }

    /// One block of queries, all query heads of a key/value head.
    fn block(&self, span: &Span<'_>, (batch, kv_head): (usize, usize), dk: *mut f32, dv: *mut f32) {
        let (spec, group, rows) = (self.spec, self.spec.group(), span.rows.len());
        let n = rows * span.step();
        let n_buffers = if spec.softcap.is_some() { 3 } else { 2 };
        scratch::with(n_buffers * n + rows, |buffer: &mut [f32]| {
            let (weights, rest) = buffer.split_at_mut(n);
            let (gradients, rest) = rest.split_at_mut(n);
            let (slopes, sums) = rest.split_at_mut(rest.len() - rows);
            let slopes = spec.softcap.is_some().then_some(slopes);
            let mut buffers = Buffers { weights, gradients, slopes, sums };
            for head in kv_head * group..(kv_head + 1) * group {
                let head = Head { isa: self.isa, spec, span, batch, head };
                self.score_gradients(&head, &mut buffers);
                self.spread(&head, &buffers, dk, dv);
            }
        });
    }

    /// The probabilities of a block, and the gradients of its scores.
    fn score_gradients(&self, head: &Head<'_>, buffers: &mut Buffers<'_>) {
        let Buffers { weights, gradients, slopes, sums } = buffers;
        scores(head, &self.x, &self.keys, weights);
        head.exponentials(weights, slopes.as_deref_mut(), sums);
        head.times_transposed(1.0, self.dy, &self.spec.y, &self.values, gradients);
        let (span, step) = (head.span, head.span.step());
        let rows = weights.chunks_exact_mut(step).zip(gradients.chunks_exact_mut(step));
        for (i, (row, (weights, gradients))) in span.rows.clone().zip(rows).enumerate() {
            let seen = span.columns(row);
            let gradients = only(gradients, &seen, span.keys.len());
            let weights = &mut weights[seen.clone()];
            differentiate_softmax(self.isa, sums[i], weights, gradients);
            if let Some(slopes) = slopes {
                multiply(self.isa, &slopes[i * step..][seen], gradients);
            }
        }
    }

    /// The products with the gradients of the scores.
    fn spread(&self, head: &Head<'_>, buffers: &Buffers<'_>, dk: *mut f32, dv: *mut f32) {
        let (spec, x, rows) = (self.spec, &self.x, &head.span.rows);
        let start = |row| spec.q.start(head.batch, head.head, row);
        let part = |row| start(row)..start(row) + spec.q.dim;
        // SAFETY: this task alone writes these rows of this query head.
        rows.clone().for_each(|row| unsafe { self.dq.part(part(row)) }.fill(0.0));
        let dq = (self.dq.ptr_at(start(rows.start)), spec.q.step());
        let (dk, dv) = ((dk, spec.k.step()), (dv, spec.v.step()));
        // SAFETY: as above, and this task alone writes this head of this copy of dk and dv.
        unsafe {
            head.scores_times(spec.scale, buffers.gradients, x.k, &spec.k, dq);
            head.transposed_times(spec.scale, buffers.gradients, x.q, &spec.q, dk);
            head.transposed_times(1.0, buffers.weights, self.dy, &spec.y, dv);
        }
    }
}

simd_fn! {
    /// From exponentials with this sum to probabilities P, and from their gradients dP to those of
    /// the scores, P ∘ (dP − P·dP).
    fn differentiate_softmax<S>(sum: f32, weights: &mut [f32], gradients: &mut [f32]) {
        let n = weights.len().min(gradients.len());
        let inverse = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        let (w, g) = (weights.as_mut_ptr(), gradients.as_mut_ptr());
        let mean = S::splat(-inverse * dot::<S>(n, w, g));
        let factor = S::splat(inverse);
        map2!(S, n, w, w, w, |x, _same| S::mul(x, factor));
        map2!(S, n, w, g, g, |p, dp| S::mul(p, S::add(dp, mean)));
    }
}

/// The sum of products of `n` values.
#[inline(always)]
unsafe fn dot<S: Simd>(n: usize, x: *const f32, y: *const f32) -> f32 {
    let mut sums = [S::splat(0.0); 2];
    let whole = n / (2 * S::LANES) * (2 * S::LANES);
    // SAFETY: the caller gives `n` values each.
    unsafe {
        for i in (0..whole).step_by(2 * S::LANES) {
            for (half, sum) in sums.iter_mut().enumerate() {
                let at = i + half * S::LANES;
                *sum = S::fma(S::load(x.add(at)), S::load(y.add(at)), *sum);
            }
        }
        for i in (whole..n).step_by(S::LANES) {
            let lanes = S::first((n - i).min(S::LANES));
            let (x, y) = (S::load_m(x.add(i), lanes), S::load_m(y.add(i), lanes));
            sums[0] = S::fma(x, y, sums[0]);
        }
    }
    S::reduce_add(S::add(sums[0], sums[1]))
}

simd_fn! {
    fn add<S>(x: &[f32], sum: &mut [f32]) {
        let (n, y) = (x.len().min(sum.len()), sum.as_mut_ptr());
        map2!(S, n, x.as_ptr(), y, y, |x, y| S::add(x, y));
    }
}

simd_fn! {
    fn multiply<S>(x: &[f32], y: &mut [f32]) {
        let (n, out) = (x.len().min(y.len()), y.as_mut_ptr());
        map2!(S, n, x.as_ptr(), out, out, |x, y| S::mul(x, y));
    }
}
