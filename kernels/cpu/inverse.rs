//! The inverse of a matrix, in f64: A = Pᵀ·L·U with partial pivoting, in panels of columns, then
//! L·U·X = P for some columns of X at a time (Golub and Van Loan, Matrix Computations, 3.2 to 3.4).

use crate::Isa;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{Simd, simd_fn};

/// Columns that are eliminated together.
const PANEL: usize = 48;
/// Columns of a tile of a product; the strides of the matrices are multiples of it.
const COLUMNS: usize = 16;
/// Rows of a tile of a product.
const ROWS: usize = 4;
/// Rows of the rest of the matrix that a thread takes at a time.
const CHUNK_ROWS: usize = 8 * ROWS;

/// A matrix that has no inverse, or one that f64 can't tell from such a one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Singular;

impl std::fmt::Display for Singular {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the matrix is singular")
    }
}

impl std::error::Error for Singular {}

/// out = the inverse of `x` `[n, n]`, computed in f64.
///
/// # Errors
/// If no pivot of a column is above n · 2⁻⁵² times the largest element that the column had, or
/// elements are not finite.
///
/// # Panics
/// When the lengths disagree.
pub fn inverse(
    pool: &ThreadPool,
    isa: Isa,
    x: &[f32],
    n: usize,
    out: &mut [f32],
) -> Result<(), Singular> {
    assert!(x.len() == n * n && out.len() == n * n, "inverse lengths");
    let mut lu = Factors::new(x, n);
    for start in (0..n).step_by(PANEL) {
        let end = (start + PANEL).min(n);
        lu.factor_panel(isa, start, end)?;
        lu.update(pool, isa, start, end);
    }
    let out = SharedMut::new(out);
    pool.for_each_dynamic(n.div_ceil(COLUMNS), 1, |tiles| {
        tiles.for_each(|tile| solve(isa, &lu, tile * COLUMNS, out));
    });
    Ok(())
}

/// L below the diagonal (its own is 1) and U on and above it, rows `stride` apart.
struct Factors {
    n: usize,
    stride: usize,
    a: Vec<f64>,
    /// The row of the original that stands in each row.
    rows: Vec<usize>,
    /// What a pivot of each column must exceed.
    least: Vec<f64>,
}

impl Factors {
    /// A matrix before the elimination.
    fn new(x: &[f32], n: usize) -> Self {
        // An odd number of tiles: rows an even one apart share few sets of the first cache.
        let stride = (n.div_ceil(COLUMNS) | 1) * COLUMNS;
        let mut a = vec![0.0; n * stride];
        let mut least = vec![0.0f64; n];
        for (to, from) in a.chunks_exact_mut(stride.max(1)).zip(x.chunks_exact(n.max(1))) {
            for ((to, from), least) in to.iter_mut().zip(from).zip(&mut least) {
                *to = f64::from(*from);
                *least = least.max(to.abs());
            }
        }
        least.iter_mut().for_each(|x| *x *= n as f64 * f64::EPSILON);
        Self { n, stride, a, rows: (0..n).collect(), least }
    }

    /// Eliminates the columns from `start` to `end`, and brings the rows beside the pivots into
    /// their final form.
    fn factor_panel(&mut self, isa: Isa, start: usize, end: usize) -> Result<(), Singular> {
        for c in start..end {
            self.pivot(c)?;
            let (above, below) = self.a.split_at_mut((c + 1) * self.stride);
            let pivots = &above[c * self.stride..];
            eliminate(isa, pivots, below, self.stride, c, end);
        }
        for r in start + 1..end {
            let (above, row) = self.a.split_at_mut(r * self.stride);
            let row = &mut row[..self.stride];
            for c in start..r {
                let factor = row[c];
                subtract(
                    isa,
                    factor,
                    &above[c * self.stride + end..][..self.stride - end],
                    &mut row[end..],
                );
            }
        }
        Ok(())
    }

    /// Brings the largest element of column `c` on or below the diagonal into it.
    fn pivot(&mut self, c: usize) -> Result<(), Singular> {
        let size = |row: &usize| self.a[row * self.stride + c].abs();
        let best = (c..self.n).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap_or(c);
        let size = size(&best);
        if !(size > self.least[c] && size.is_finite()) {
            return Err(Singular);
        }
        if best != c {
            let (above, below) = self.a.split_at_mut(best * self.stride);
            above[c * self.stride..][..self.stride].swap_with_slice(&mut below[..self.stride]);
            self.rows.swap(c, best);
        }
        Ok(())
    }

    /// Takes the product of the panel and the rows beside its pivots from the rest of the matrix.
    fn update(&mut self, pool: &ThreadPool, isa: Isa, start: usize, end: usize) {
        let (n, stride) = (self.n, self.stride);
        let (above, below) = self.a.split_at_mut(end * stride);
        let below = SharedMut::new(below);
        pool.for_each_dynamic(n - end, CHUNK_ROWS, |rows| {
            // SAFETY: each row is visited once.
            let rows = unsafe { below.part(rows.start * stride..rows.end * stride) };
            update_rows(isa, above, rows, stride, start, end);
        });
    }
}

simd_fn! {
    /// Makes factors of column `c` of the rows `below`, and takes the row `pivots` so often from
    /// what of them lies before the column `end`.
    fn eliminate<S>(pivots: &[f64], below: &mut [f64], stride: usize, c: usize, end: usize) {
        let inverse = 1.0 / pivots[c];
        for row in below.chunks_exact_mut(stride) {
            row[c] *= inverse;
            let factor = row[c];
            for (x, pivot) in row[c + 1..end].iter_mut().zip(&pivots[c + 1..end]) {
                *x -= factor * pivot;
            }
        }
    }
}

simd_fn! {
    /// row −= factor · other.
    fn subtract<S>(factor: f64, other: &[f64], row: &mut [f64]) {
        for (x, other) in row.iter_mut().zip(other) {
            *x -= factor * other;
        }
    }
}

simd_fn! {
    /// rows −= (their columns from `start` to `end`) · (those rows of `above`), right of `end`.
    fn update_rows<S>(above: &[f64], rows: &mut [f64], stride: usize, start: usize, end: usize) {
        let n_rows = rows.len() / stride;
        let source = &above[start * stride..end * stride];
        // Columns left of `end` in the first tile are written anew with what they hold: the tile
        // begins there, so that every tile is whole.
        let first = end / COLUMNS * COLUMNS;
        let mut factors = [[0.0; PANEL]; ROWS];
        for top in (0..n_rows).step_by(ROWS) {
            let take = (n_rows - top).min(ROWS);
            let block = &mut rows[top * stride..(top + take) * stride];
            for (factors, row) in factors.iter_mut().zip(block.chunks_exact(stride)) {
                factors[..end - start].copy_from_slice(&row[start..end]);
            }
            let factors = factors.each_ref().map(|f| &f[..end - start]);
            for j in (first..stride).step_by(COLUMNS) {
                let mut tile = [[0.0; COLUMNS]; ROWS];
                read(&mut tile, block, stride, j);
                let before = tile;
                subtract_product::<S>(&mut tile, factors, &source[j..], stride);
                if j < end {
                    keep(&mut tile, &before, end - j);
                }
                write(&tile, block, stride, j);
            }
        }
    }
}

/// A piece of a matrix that is held in registers.
type Tile = [[f64; COLUMNS]; ROWS];

/// tile −= factors · source, whose rows are `stride` apart.
#[inline(always)]
fn subtract_product<S: Simd>(
    tile: &mut Tile,
    factors: [&[f64]; ROWS],
    source: &[f64],
    stride: usize,
) {
    let n = factors[0].len();
    let mut sums = *tile;
    for (i, row) in source.chunks(stride).take(n).enumerate() {
        let row: &[f64; COLUMNS] = row[..COLUMNS].try_into().expect("a whole tile");
        for r in 0..ROWS {
            let factor = -factors[r][i];
            for c in 0..COLUMNS {
                // Without the instruction a fused product is a call.
                sums[r][c] = if S::LANES > 4 {
                    factor.mul_add(row[c], sums[r][c])
                } else {
                    factor * row[c] + sums[r][c]
                };
            }
        }
    }
    *tile = sums;
}

/// Fills a tile with the columns from `j` on of up to `ROWS` rows.
#[inline(always)]
fn read(tile: &mut Tile, rows: &[f64], stride: usize, j: usize) {
    for (tile, row) in tile.iter_mut().zip(rows.chunks_exact(stride)) {
        tile.copy_from_slice(&row[j..j + COLUMNS]);
    }
}

/// The reverse of [`read`].
#[inline(always)]
fn write(tile: &Tile, rows: &mut [f64], stride: usize, j: usize) {
    for (tile, row) in tile.iter().zip(rows.chunks_exact_mut(stride)) {
        row[j..j + COLUMNS].copy_from_slice(tile);
    }
}

/// Puts the first `n` columns of `before` back.
#[inline(always)]
fn keep(tile: &mut Tile, before: &Tile, n: usize) {
    for (tile, before) in tile.iter_mut().zip(before) {
        tile[..n].copy_from_slice(&before[..n]);
    }
}

simd_fn! {
    /// Writes up to `COLUMNS` columns of the inverse, from `first` on.
    fn solve<S>(lu: &Factors, first: usize, out: SharedMut<'_, f32>) {
        let n = lu.n;
        let mut x = vec![0.0; n.next_multiple_of(ROWS) * COLUMNS];
        for (i, row) in lu.rows.iter().enumerate() {
            if (first..first + COLUMNS).contains(row) {
                x[i * COLUMNS + row - first] = 1.0;
            }
        }
        // Above its first 1 the right-hand side, and so the solution with L, is 0.
        let one = lu.rows.iter().position(|row| (first..first + COLUMNS).contains(row));
        let zeros = one.unwrap_or(0) / ROWS * ROWS;
        for top in (zeros..n).step_by(ROWS) {
            solve_rows::<S>(lu, top, zeros, top, &mut x, true);
        }
        for top in (0..n).step_by(ROWS).rev() {
            solve_rows::<S>(lu, top, (top + ROWS).min(n), n, &mut x, false);
        }
        let width = (n - first).min(COLUMNS);
        for (i, row) in x.chunks_exact(COLUMNS).take(n).enumerate() {
            let to = out.part(i * n + first..i * n + first + width);
            to.iter_mut().zip(row).for_each(|(to, x)| *to = *x as f32);
        }
    }
}

/// Solves for `ROWS` rows of X from `top` on, with L (`lower`) or U, where the rows from `start` to
/// `end` are known.
#[inline(always)]
fn solve_rows<S: Simd>(
    lu: &Factors,
    top: usize,
    start: usize,
    end: usize,
    x: &mut [f64],
    lower: bool,
) {
    let rows = (lu.n - top).min(ROWS);
    let row = |r: usize| &lu.a[(top + r.min(rows - 1)) * lu.stride..][..lu.n];
    let mut tile = [[0.0; COLUMNS]; ROWS];
    read(&mut tile, &x[top * COLUMNS..], COLUMNS, 0);
    let factors = std::array::from_fn(|r| &row(r)[start..end]);
    subtract_product::<S>(&mut tile, factors, &x[start * COLUMNS..], COLUMNS);
    for step in 0..rows {
        let r = if lower { step } else { rows - 1 - step };
        let known = if lower { 0..r } else { r + 1..rows };
        for other in known {
            let (factor, source) = (row(r)[top + other], tile[other]);
            tile[r].iter_mut().zip(source).for_each(|(x, y)| *x -= factor * y);
        }
        if !lower {
            let pivot = row(r)[top + r];
            tile[r].iter_mut().for_each(|x| *x /= pivot);
        }
    }
    write(&tile, &mut x[top * COLUMNS..], COLUMNS, 0);
}
