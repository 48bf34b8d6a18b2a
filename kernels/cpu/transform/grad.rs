//! The gradients of the transform.
//!
//! Of Y = P1ᵀ·X̃·P2 and the gradient G of Y: dX = P1·G·P2ᵀ, and summed over the rows
//! dP1 = Σ X̃·(G·P2ᵀ)ᵀ and dP2 = Σ X̃ᵀ·(P1·G). So W = G·P2ᵀ serves dX = P1·W and dP1, and
//! H = P1·G serves dP2: five small products a row.

use super::Kronecker;
use super::product::product;
use crate::mat::{MatMut, MatRef};
use crate::partial_sums::sum_over_rows;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::simd_fn;
use crate::{Isa, scratch};

/// Rows that share partial sums of dP1 and dP2 at least, so that adding these up is cheap.
const MIN_ROWS: usize = 16;
/// Sizes of a transposed matrix are multiples of this, the longest vector.
const PADDING: usize = 16;

/// Gradients of [`transform_rows`](crate::transform_rows) of plain rows `x` `[m, n]` from that of
/// its output, `dy` `[m, n]`: `dx` `[m, n]`, and in `factors` those of P1 `[n1, n1]` and then P2
/// `[n2, n2]`, as far as they are there.
///
/// # Panics
/// When the lengths disagree.
pub fn transform_rows_grad(
    pool: &ThreadPool,
    isa: Isa,
    dy: &[f32],
    x: &[f32],
    transform: Kronecker<'_>,
    dx: &mut [f32],
    factors: &mut [f32],
) {
    let n = transform.n();
    let m = if n == 0 { 0 } else { x.len() / n };
    let lengths = [x.len(), dy.len(), dx.len()];
    assert!(lengths == [m * n; 3], "transform gradient lengths");
    transform.check();
    let len = |p: Option<&[f32]>| p.map_or(0, <[f32]>::len);
    let split = len(transform.p1);
    assert_eq!(factors.len(), split + len(transform.p2), "transform gradient lengths");
    let dx = SharedMut::new(dx);
    with_transposed(isa, transform, |p2_t| {
        let group = transform.group();
        sum_over_rows(pool, isa, m, MIN_ROWS, factors, |rows, sums| {
            let (dp1, dp2) = sums.split_at_mut(split);
            for start in rows.clone().step_by(group) {
                let at = start * n..(start + group).min(rows.end) * n;
                // SAFETY: each row is visited once.
                let dx = unsafe { dx.part(at.clone()) };
                let group = Group { isa, t: transform, p2_t, dy: &dy[at.clone()], x: &x[at] };
                group.run(dx, dp1, dp2);
            }
        });
    });
}

/// Calls `f` with P2ᵀ, row-major with rows a multiple of the padding apart.
fn with_transposed(isa: Isa, t: Kronecker<'_>, f: impl FnOnce(Option<MatRef<'_>>)) {
    let Some(p2) = t.p2 else { return f(None) };
    scratch::with(padded(t.n2) * padded(t.n2), |buffer: &mut [f32]| {
        f(Some(transpose(isa, MatRef::new(p2, t.n2, t.n2), buffer)));
    });
}

fn padded(n: usize) -> usize {
    n.next_multiple_of(PADDING)
}

/// Rows that are worked on together.
struct Group<'a> {
    isa: Isa,
    t: Kronecker<'a>,
    p2_t: Option<MatRef<'a>>,
    dy: &'a [f32],
    x: &'a [f32],
}

impl Group<'_> {
    fn run(&self, dx: &mut [f32], dp1: &mut [f32], dp2: &mut [f32]) {
        let transposed = padded(self.t.n1) * padded(self.t.n2);
        scratch::with(dx.len() + transposed, |buffer: &mut [f32]| {
            let (between, transposed) = buffer.split_at_mut(dx.len());
            match self.t.p1 {
                None => self.times_p2_t(dx),
                Some(p1) => {
                    let w = self.p2_t.map_or(self.dy, |_| {
                        self.times_p2_t(between);
                        between
                    });
                    self.p1_times(p1, w, dx);
                    self.add_dp1(w, transposed, dp1);
                }
            }
            if self.t.p2.is_some() {
                let h = self.t.p1.map_or(self.dy, |p1| {
                    self.p1_times(p1, self.dy, between);
                    between
                });
                self.add_dp2(h, dp2);
            }
        });
    }

    /// All rows' halves of n2 values as one tall matrix.
    fn tall<'b>(&self, x: &'b [f32]) -> MatRef<'b> {
        MatRef::new(x, x.len() / self.t.n2, self.t.n2)
    }

    /// out = G·P2ᵀ.
    fn times_p2_t(&self, out: &mut [f32]) {
        let g = self.tall(self.dy);
        match self.p2_t {
            None => out.copy_from_slice(self.dy),
            Some(p2_t) => product(self.isa, g, p2_t, 0.0, MatMut::new(out, g.rows, g.cols)),
        }
    }

    /// out = P1·x of each row.
    fn p1_times(&self, p1: &[f32], x: &[f32], out: &mut [f32]) {
        let (n1, n2) = (self.t.n1, self.t.n2);
        for (x, out) in x.chunks_exact(n1 * n2).zip(out.chunks_exact_mut(n1 * n2)) {
            let (p1, x) = (MatRef::new(p1, n1, n1), MatRef::new(x, n1, n2));
            product(self.isa, p1, x, 0.0, MatMut::new(out, n1, n2));
        }
    }

    /// dP1 += Σ X̃·Wᵀ. The transposition takes time that grows with the values, the product time
    /// that grows with n1 as well.
    fn add_dp1(&self, w: &[f32], transposed: &mut [f32], dp1: &mut [f32]) {
        let (n1, n2) = (self.t.n1, self.t.n2);
        for (x, w) in self.x.chunks_exact(n1 * n2).zip(w.chunks_exact(n1 * n2)) {
            let w_t = transpose(self.isa, MatRef::new(w, n1, n2), transposed);
            product(self.isa, MatRef::new(x, n1, n2), w_t, 1.0, MatMut::new(dp1, n1, n1));
        }
    }

    /// dP2 += Σ X̃ᵀ·H, one product whose depth is all rows'.
    fn add_dp2(&self, h: &[f32], dp2: &mut [f32]) {
        let n2 = self.t.n2;
        product(self.isa, self.tall(self.x).t(), self.tall(h), 1.0, MatMut::new(dp2, n2, n2));
    }
}

/// The transpose of a row-major matrix, in `buffer` with rows a multiple of the padding apart.
fn transpose<'b>(isa: Isa, x: MatRef<'_>, buffer: &'b mut [f32]) -> MatRef<'b> {
    let stride = padded(x.rows);
    transpose_blocks(isa, x, buffer);
    MatRef::with_stride(buffer, x.cols, x.rows, stride)
}

simd_fn! {
    /// Transposes square blocks; those that reach past the edge go through a copy.
    fn transpose_blocks<S>(x: MatRef<'_>, out: &mut [f32]) {
        let stride = padded(x.rows);
        assert!(x.fits() && x.col_stride == 1 && out.len() >= padded(x.cols) * stride);
        for i in (0..x.rows).step_by(S::LANES) {
            for j in (0..x.cols).step_by(S::LANES) {
                let (rows, cols) = (S::LANES.min(x.rows - i), S::LANES.min(x.cols - j));
                let (src, dst) =
                    (x.data.as_ptr().add(i * x.row_stride + j), out.as_mut_ptr().add(j * stride + i));
                if rows == S::LANES && cols == S::LANES {
                    S::transpose(src, x.row_stride, dst, stride);
                } else {
                    let mut copy = [0.0f32; PADDING * PADDING];
                    for r in 0..rows {
                        let row = S::load_m(src.add(r * x.row_stride), S::first(cols));
                        S::store(copy.as_mut_ptr().add(r * S::LANES), row);
                    }
                    S::transpose(copy.as_ptr(), S::LANES, dst, stride);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_any_shape_is_transposed() {
        for (rows, cols) in [(1, 1), (16, 16), (24, 24), (5, 33), (40, 9)] {
            let x: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
            for isa in Isa::available() {
                let mut buffer = vec![f32::NAN; padded(rows) * padded(cols)];
                let t = transpose(isa, MatRef::new(&x, rows, cols), &mut buffer);
                assert_eq!((t.rows, t.cols), (cols, rows));
                for (i, x) in x.iter().enumerate() {
                    assert_eq!(t.data[i % cols * t.row_stride + i / cols], *x);
                }
            }
        }
    }
}
