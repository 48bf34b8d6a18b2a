//! The register-tiled serial product that the larger kernels are made of.

use crate::Isa;
use crate::simd::{Simd, simd_fn};

/// c = alpha·a·b + beta·c: A with any strides, B and C row-major with `ldb` and `ldc` elements
/// from row to row.
pub(crate) struct Block {
    pub(crate) k: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_col: usize,
    pub(crate) b: *const f32,
    pub(crate) ldb: usize,
    pub(crate) c: *mut f32,
    pub(crate) ldc: usize,
    pub(crate) alpha: f32,
    /// With 0, C is not read.
    pub(crate) beta: f32,
}

/// Runs one product on the calling thread.
///
/// # Safety
/// The matrices lie in live memory, and nobody else touches C.
pub(crate) unsafe fn gemm_block(isa: Isa, block: &Block) {
    run(isa, block);
}

simd_fn! {
    fn run<S>(g: &Block) {
        let mut j = 0;
        while j < g.n {
            let left = (g.n - j).min(S::TILE_VECTORS * S::LANES);
            let vectors = left.div_ceil(S::LANES);
            let last = S::first(left - (vectors - 1) * S::LANES);
            match vectors {
                1 => panel::<S, 8, 1>(g, j, last),
                2 if S::TILE_VECTORS == 2 => panel::<S, 6, 2>(g, j, last),
                2 => panel::<S, 8, 2>(g, j, last),
                3 if S::TILE_VECTORS > 2 => panel::<S, 8, 3>(g, j, last),
                _ if S::TILE_VECTORS > 2 => panel::<S, 6, 4>(g, j, last),
                _ => {}
            }
            j += left;
        }
    }
}

/// All rows of a panel `V` vectors wide: `M` at a time, then what is left by 4, 2 and 1.
#[inline(always)]
unsafe fn panel<S: Simd, const M: usize, const V: usize>(g: &Block, j: usize, last: S::M) {
    let mut i = 0;
    // SAFETY: rows i.. of the block exist in each call.
    unsafe {
        while i + M <= g.m {
            micro::<S, M, V>(g, i, j, last);
            i += M;
        }
        while i + 4 <= g.m {
            micro::<S, 4, V>(g, i, j, last);
            i += 4;
        }
        if i + 2 <= g.m {
            micro::<S, 2, V>(g, i, j, last);
            i += 2;
        }
        if i < g.m {
            micro::<S, 1, V>(g, i, j, last);
        }
    }
}

/// `M` rows by `V` vectors of C, kept in registers over the whole depth; the last vector of a row
/// has only the lanes of `last`.
#[inline(always)]
unsafe fn micro<S: Simd, const M: usize, const V: usize>(
    g: &Block,
    i: usize,
    j: usize,
    last: S::M,
) {
    let mut acc = [[S::splat(0.0); V]; M];
    // SAFETY: the rows and columns lie inside the matrices.
    unsafe {
        let mut a = g.a.add(i * g.a_row);
        let mut b = g.b.add(j);
        for _ in 0..g.k {
            let mut row = [S::splat(0.0); V];
            for (v, x) in row.iter_mut().enumerate() {
                *x = load::<S, V>(b, v, last);
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = S::splat(*a.add(r * g.a_row));
                for v in 0..V {
                    acc[v] = S::fma(x, row[v], acc[v]);
                }
            }
            a = a.wrapping_add(g.a_col);
            b = b.wrapping_add(g.ldb);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            write_row::<S, V>(g, g.c.add((i + r) * g.ldc + j), acc, last);
        }
    }
}

#[inline(always)]
unsafe fn load<S: Simd, const V: usize>(p: *const f32, v: usize, last: S::M) -> S::F {
    // SAFETY: the caller's promise; only the last vector is partial.
    unsafe {
        if v + 1 == V { S::load_m(p.add(v * S::LANES), last) } else { S::load(p.add(v * S::LANES)) }
    }
}

#[inline(always)]
unsafe fn write_row<S: Simd, const V: usize>(g: &Block, c: *mut f32, acc: [S::F; V], last: S::M) {
    for (v, x) in acc.into_iter().enumerate() {
        // SAFETY: as in `micro`.
        unsafe {
            let mut y = S::mul(S::splat(g.alpha), x);
            if g.beta != 0.0 {
                y = S::fma(S::splat(g.beta), load::<S, V>(c, v, last), y);
            }
            let p = c.add(v * S::LANES);
            if v + 1 == V { S::store_m(p, y, last) } else { S::store(p, y) }
        }
    }
}
