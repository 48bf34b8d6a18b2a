//! Activation rows in the shape the kernels read: padded like the weights, and with their sums.

use crate::packed::PackedWeights;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::simd_fn;
use crate::{Isa, scratch};
use std::ops::Range;

/// Codes below which one thread sums the rows.
const MIN_CODES: usize = 65_536;

/// Calls `f` with the codes as `[m, padded K]` and the sum of each row and scale group,
/// `[m, groups]`. The codes are copied only where the padding makes a difference.
pub(super) fn with_rows<R>(
    pool: &ThreadPool,
    isa: Isa,
    codes: &[i8],
    m: usize,
    w: &PackedWeights,
    f: impl FnOnce(&[i8], &[i32]) -> R,
) -> R {
    let padded = w.k_padded();
    let copy_len = if padded == w.k { 0 } else { m * padded };
    scratch::with(copy_len, |copy: &mut [i8]| {
        if copy_len > 0 {
            pad_rows(codes, w, copy);
        }
        let codes = if copy_len > 0 { &*copy } else { codes };
        scratch::with(m * w.n_groups, |sums: &mut [i32]| {
            let out = SharedMut::new(sums);
            pool.for_each_chunk(m, MIN_CODES.div_ceil(padded.max(1)), |rows| {
                // SAFETY: the threads' rows are disjoint.
                let sums = unsafe { out.part(rows.start * w.n_groups..rows.end * w.n_groups) };
                row_sums(isa, codes, rows, w.n_groups, w.group_padded, sums);
            });
            f(codes, sums)
        })
    })
}

/// Copies `[m, K]` codes to `[m, groups, padded group]`, with zeros in the padding.
fn pad_rows(codes: &[i8], w: &PackedWeights, copy: &mut [i8]) {
    copy.fill(0);
    if w.k == 0 {
        return;
    }
    for (from, to) in codes.chunks_exact(w.k).zip(copy.chunks_exact_mut(w.k_padded())) {
        for (from, to) in from.chunks(w.group).zip(to.chunks_exact_mut(w.group_padded)) {
            to[..from.len()].copy_from_slice(from);
        }
    }
}

simd_fn! {
    fn row_sums<S>(
        codes: &[i8],
        rows: Range<usize>,
        n_groups: usize,
        group: usize,
        sums: &mut [i32],
    ) {
        let first = rows.start * n_groups;
        for (i, sum) in sums.iter_mut().enumerate() {
            let codes = &codes[(first + i) * group..][..group];
            *sum = codes.iter().fold(0i32, |s, &c| s.wrapping_add(i32::from(c)));
        }
    }
}
