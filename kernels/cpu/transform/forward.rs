//! The transform itself.

use std::ops::Range;

use super::product::product;
use super::{Kronecker, RowSource};
use crate::mat::{MatMut, MatRef};
use crate::pool::ThreadPool;
use crate::quantize::{QuantSpec, quantize_row};
use crate::shared::SharedMut;
use crate::{Isa, scratch};

/// Values below which rows are not worth another thread.
const MIN_VALUES: usize = 8_192;

/// Transforms the rows of `input` and quantises them: codes into `codes` `[m, n]`, scales into
/// `scales` `[m]`, with n = n1·n2.
///
/// # Panics
/// When the lengths disagree.
pub fn transform_quantize(
    pool: &ThreadPool,
    isa: Isa,
    input: RowSource<'_>,
    transform: Kronecker<'_>,
    spec: QuantSpec,
    codes: &mut [i8],
    scales: &mut [f32],
) {
    let (m, n) = (scales.len(), transform.n());
    assert_eq!(codes.len(), m * n, "transform output length");
    let (codes, scales) = (SharedMut::new(codes), SharedMut::new(scales));
    each_group(pool, isa, input, transform, m, |rows, x, [right, left]| {
        // SAFETY: each row is visited once.
        let scales = unsafe { scales.part(rows.clone()) };
        // SAFETY: as above.
        let codes = unsafe { codes.part(rows.start * n..rows.end * n) };
        let y = transformed(isa, transform, x, right, left);
        let outputs = codes.chunks_exact_mut(n).zip(scales);
        for (y, (codes, scale)) in y.chunks_exact(n).zip(outputs) {
            *scale = quantize_row(isa, y, spec, codes);
        }
    });
}

/// Transforms the rows of `input` into `out` `[m, n]`, with n = n1·n2.
///
/// # Panics
/// When the lengths disagree.
pub fn transform_rows(
    pool: &ThreadPool,
    isa: Isa,
    input: RowSource<'_>,
    transform: Kronecker<'_>,
    out: &mut [f32],
) {
    let n = transform.n();
    let m = if n == 0 { 0 } else { out.len() / n };
    assert_eq!(out.len(), m * n, "transform output length");
    let out = SharedMut::new(out);
    each_group(pool, isa, input, transform, m, |rows, x, [right, _]| {
        // SAFETY: each row is visited once.
        let out = unsafe { out.part(rows.start * n..rows.end * n) };
        if transform.p1.is_none() && transform.p2.is_none() {
            out.copy_from_slice(x);
        } else {
            transformed(isa, transform, x, right, out);
        }
    });
}

/// Calls `f` with each group of rows, their values, and two buffers of as many values.
fn each_group(
    pool: &ThreadPool,
    isa: Isa,
    input: RowSource<'_>,
    t: Kronecker<'_>,
    m: usize,
    f: impl Fn(Range<usize>, &[f32], [&mut [f32]; 2]) + Sync,
) {
    let n = t.n();
    input.check(m, n);
    t.check();
    if n == 0 {
        return;
    }
    let group = t.group().min(m);
    let work = |rows: Range<usize>| {
        let len = rows.len() * n;
        scratch::with(3 * len, |buffer: &mut [f32]| {
            let (first, rest) = buffer.split_at_mut(len);
            let (second, third) = rest.split_at_mut(len);
            f(rows.clone(), input.rows(isa, rows, n, first), [second, third]);
        });
    };
    if m * n < MIN_VALUES {
        (0..m).step_by(group.max(1)).for_each(|start| work(start..(start + group).min(m)));
    } else {
        pool.for_each_dynamic(m, group, work);
    }
}

/// P1ᵀ·X̃·P2 of each row of `x`, which lies in `left` or, untransformed, where it was.
fn transformed<'b>(
    isa: Isa,
    t: Kronecker<'_>,
    x: &'b [f32],
    right: &'b mut [f32],
    left: &'b mut [f32],
) -> &'b [f32] {
    let (n1, n2) = (t.n1, t.n2);
    let times_p2 = |p2: &[f32], z: &mut [f32]| {
        let rows = x.len() / n2;
        let (x, p2) = (MatRef::new(x, rows, n2), MatRef::new(p2, n2, n2));
        product(isa, x, p2, 0.0, MatMut::new(z, rows, n2));
    };
    let (p1, z) = match (t.p1, t.p2) {
        (None, None) => return x,
        (None, Some(p2)) => {
            times_p2(p2, left);
            return left;
        }
        (Some(p1), None) => (p1, x),
        (Some(p1), Some(p2)) => {
            times_p2(p2, right);
            (p1, &*right)
        }
    };
    let p1 = MatRef::new(p1, n1, n1).t();
    for (z, y) in z.chunks_exact(n1 * n2).zip(left.chunks_exact_mut(n1 * n2)) {
        product(isa, p1, MatRef::new(z, n1, n2), 0.0, MatMut::new(y, n1, n2));
    }
    left
}
