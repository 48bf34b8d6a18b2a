//! The portable form: four f32 values in an array.

use super::Simd;

/// Portable vectors.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

type F = [f32; 4];

#[inline(always)]
fn zip(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Scalar {
    type F = F;
    type M = usize;
    const LANES: usize = 4;
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    fn splat(x: f32) -> F {
        [x; 4]
    }
    #[inline(always)]
    fn first(n: usize) -> usize {
        n.min(4)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: F) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<F>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_m(p: *const f32, m: usize) -> F {
        // SAFETY: only lanes below `m` are read.
        std::array::from_fn(|i| if i < m { unsafe { *p.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_m(p: *mut f32, v: F, m: usize) {
        for (i, x) in v.into_iter().enumerate().take(m) {
            // SAFETY: only lanes below `m` are written.
            unsafe { *p.add(i) = x }
        }
    }
    #[inline(always)]
    unsafe fn load_i32(p: *const i32, minus: i32) -> F {
        // SAFETY: the caller's promise.
        std::array::from_fn(|i| unsafe { *p.add(i) }.wrapping_sub(minus) as f32)
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> F {
        // SAFETY: the caller's promise.
        std::array::from_fn(|i| f32::from(unsafe { *p.add(i) }))
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> (F, F) {
        // SAFETY: the caller's promise.
        let bytes: [u8; 4] = std::array::from_fn(|i| unsafe { *p.add(i) });
        (bytes.map(|b| f32::from(b & 15)), bytes.map(|b| f32::from(b >> 4)))
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, v: F, n: usize) {
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: only the first `n` are written.
            unsafe { *p.add(i) = x as i32 as i8 }
        }
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        for i in 0..4 {
            for j in 0..4 {
                // SAFETY: the caller's promise.
                unsafe { *dst.add(j * dst_stride + i) = *src.add(i * src_stride + j) }
            }
        }
    }
    #[inline(always)]
    fn add(a: F, b: F) -> F {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(a: F, b: F) -> F {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(a: F, b: F) -> F {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(a: F, b: F) -> F {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn fma(a: F, b: F, c: F) -> F {
        Self::add(Self::mul(a, b), c)
    }
    #[inline(always)]
    fn max(a: F, b: F) -> F {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn min(a: F, b: F) -> F {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn abs(a: F) -> F {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn round(a: F) -> F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn recip(a: F) -> F {
        a.map(|x| 1.0 / x)
    }
    #[inline(always)]
    fn pow2(n: F) -> F {
        n.map(|x| f32::from_bits(((x as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn select_lt(a: F, b: F, x: F, y: F) -> F {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    fn any_gt(a: F, b: F) -> bool {
        (0..4).any(|i| a[i] > b[i])
    }
    #[inline(always)]
    fn reduce_add(a: F) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn reduce_max(a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn reduce_min(a: F) -> f32 {
        a.into_iter().fold(f32::INFINITY, f32::min)
    }
}
