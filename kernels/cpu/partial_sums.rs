//! Sums over the rows of a matrix, the same for any number of threads.

use std::ops::Range;

use crate::elementwise::add_assign_part;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::{Isa, scratch};

/// Chunks that the rows are split into at most; as many vectors of partial sums are held at once.
const MAX_CHUNKS: usize = 64;
/// Sums below which adding up is not worth another thread.
const MIN_SUMS: usize = 4_096;

/// Calls `f` with consecutive chunks of the rows `0..m`, none shorter than `min_rows` but the
/// last, and a vector of zeros that it adds what the rows give to. The vectors are added up in
/// order into `out`.
///
/// Chunks depend on `m` and `min_rows` alone, so the sums have the same bits whatever thread runs
/// which chunk.
pub(crate) fn sum_over_rows(
    pool: &ThreadPool,
    isa: Isa,
    m: usize,
    min_rows: usize,
    out: &mut [f32],
    f: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let rows = m.div_ceil(MAX_CHUNKS).max(min_rows).max(1);
    let width = out.len();
    scratch::with(m.div_ceil(rows) * width, |partials: &mut [f32]| {
        let shared = SharedMut::new(partials);
        pool.for_each_dynamic(m, rows, |range| {
            let chunk = range.start / rows;
            // SAFETY: each chunk is visited once.
            let partial = unsafe { shared.part(chunk * width..(chunk + 1) * width) };
            partial.fill(0.0);
            f(range, partial);
        });
        add_up(pool, isa, partials, out);
    });
}

/// out = the sum of the vectors in `partials`, first to last.
fn add_up(pool: &ThreadPool, isa: Isa, partials: &[f32], out: &mut [f32]) {
    let width = out.len();
    let shared = SharedMut::new(out);
    pool.for_each_chunk(width, MIN_SUMS, |range| {
        // SAFETY: the threads' ranges are disjoint.
        let out = unsafe { shared.part(range.clone()) };
        out.fill(0.0);
        for partial in partials.chunks_exact(width.max(1)) {
            add_assign_part(isa, &partial[range.clone()], out);
        }
    });
}
