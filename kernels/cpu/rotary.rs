//! Rotary position embedding.

use crate::Isa;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::simd_fn;

/// Values below which rows are not worth another thread.
const MIN_VALUES: usize = 16_384;

/// Shape of a rotary embedding on rows of `n_heads` heads of `head_dim` values
/// (Su et al. 2021; ONNX RotaryEmbedding).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotarySpec {
    /// Heads in a row.
    pub n_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Values of a head that are rotated, even; the rest pass unchanged.
    pub rotary_dim: usize,
    /// Pairs are neighbours (2i, 2i + 1); otherwise halves (i, i + rotary_dim / 2).
    pub interleaved: bool,
}

/// out = the rotated rows of `x` `[rows, n_heads·head_dim]`: a pair (a, b) becomes
/// (a·cos − b·sin, a·sin + b·cos), with `cos` and `sin` `[rows, rotary_dim/2]`.
///
/// # Panics
/// When the lengths disagree or `rotary_dim` is odd or above `head_dim`.
#[allow(clippy::too_many_arguments)]
pub fn rotary(
    pool: &ThreadPool,
    isa: Isa,
    x: &[f32],
    spec: RotarySpec,
    cos: &[f32],
    sin: &[f32],
    out: &mut [f32],
) {
    assert_eq!(x.len(), out.len(), "rotary lengths");
    each_row(pool, isa, spec, cos, sin, out, Some(x));
}

/// [`rotary`] in place.
///
/// # Panics
/// As [`rotary`].
pub fn rotary_in_place(
    pool: &ThreadPool,
    isa: Isa,
    x: &mut [f32],
    spec: RotarySpec,
    cos: &[f32],
    sin: &[f32],
) {
    each_row(pool, isa, spec, cos, sin, x, None);
}

fn each_row(
    pool: &ThreadPool,
    isa: Isa,
    spec: RotarySpec,
    cos: &[f32],
    sin: &[f32],
    out: &mut [f32],
    from: Option<&[f32]>,
) {
    let (n, half) = (spec.n_heads * spec.head_dim, spec.rotary_dim / 2);
    assert!(spec.rotary_dim.is_multiple_of(2) && spec.rotary_dim <= spec.head_dim, "rotary_dim");
    let rows = if n == 0 { 0 } else { out.len() / n };
    assert_eq!(out.len(), rows * n, "rotary lengths");
    assert!(cos.len() == rows * half && sin.len() == rows * half, "rotary table lengths");
    let out = SharedMut::new(out);
    pool.for_each_chunk(rows, MIN_VALUES.div_ceil(n.max(1)), |rows| {
        for i in rows {
            // SAFETY: each row is visited once.
            let row = unsafe { out.part(i * n..(i + 1) * n) };
            if let Some(x) = from {
                row.copy_from_slice(&x[i * n..(i + 1) * n]);
            }
            let at = i * half..(i + 1) * half;
            rotate_row(isa, spec, &cos[at.clone()], &sin[at], row);
        }
    });
}

simd_fn! {
    fn rotate_row<S>(spec: RotarySpec, cos: &[f32], sin: &[f32], row: &mut [f32]) {
        for head in row.chunks_exact_mut(spec.head_dim) {
            let turned = &mut head[..spec.rotary_dim];
            if spec.interleaved {
                for ((pair, &c), &s) in turned.chunks_exact_mut(2).zip(cos).zip(sin) {
                    (pair[0], pair[1]) = (pair[0] * c - pair[1] * s, pair[0] * s + pair[1] * c);
                }
            } else {
                let (low, high) = turned.split_at_mut(cos.len());
                for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
                }
            }
        }
    }
}
