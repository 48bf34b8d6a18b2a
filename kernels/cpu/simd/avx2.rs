//! The AVX2 form: eight f32 values.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::Simd;
use std::arch::x86_64::*;

/// 256-bit vectors. See [`Simd`] for why the register-only operations count as safe.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// Eight lanes on, then eight off: a window into it is the mask of the first lanes.
static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Column c of the rows paired in `a` and `b`, in each half.
#[inline(always)]
unsafe fn column(a: __m256, b: __m256, c: usize) -> __m256 {
    unsafe {
        let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
        let mixed = if c & 1 == 0 { _mm256_unpacklo_pd(a, b) } else { _mm256_unpackhi_pd(a, b) };
        _mm256_castpd_ps(mixed)
    }
}

#[inline(always)]
unsafe fn fold(a: __m256, f: impl Fn(f32, f32) -> f32) -> f32 {
    let x: [f32; 8] = unsafe { std::mem::transmute(a) };
    f(f(f(x[0], x[4]), f(x[2], x[6])), f(f(x[1], x[5]), f(x[3], x[7])))
}

impl Simd for Avx2 {
    type F = __m256;
    type M = __m256i;
    const LANES: usize = 8;
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn first(n: usize) -> __m256i {
        unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - n.min(8)).cast()) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_m(p: *const f32, m: __m256i) -> __m256 {
        unsafe { _mm256_maskload_ps(p, m) }
    }
    #[inline(always)]
    unsafe fn store_m(p: *mut f32, v: __m256, m: __m256i) {
        unsafe { _mm256_maskstore_ps(p, m, v) }
    }
    #[inline(always)]
    unsafe fn load_i32(p: *const i32, minus: i32) -> __m256 {
        unsafe {
            let x = _mm256_loadu_si256(p.cast());
            _mm256_cvtepi32_ps(_mm256_sub_epi32(x, _mm256_set1_epi32(minus)))
        }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> (__m256, __m256) {
        unsafe {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
            let low = _mm256_and_si256(bytes, _mm256_set1_epi32(15));
            (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(_mm256_srli_epi32::<4>(bytes)))
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, v: __m256, n: usize) {
        unsafe {
            let x: [i32; 8] = std::mem::transmute(_mm256_cvtps_epi32(v));
            let bytes = x.map(|c| c as i8);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n.min(8));
        }
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        unsafe {
            let mut t = [_mm256_setzero_ps(); 8];
            for i in (0..8).step_by(2) {
                let a = _mm256_loadu_ps(src.add(i * src_stride));
                let b = _mm256_loadu_ps(src.add((i + 1) * src_stride));
                t[i] = _mm256_unpacklo_ps(a, b);
                t[i + 1] = _mm256_unpackhi_ps(a, b);
            }
            for c in 0..4 {
                // Column c of each half, for the upper and the lower four rows.
                let (top, bottom) =
                    (column(t[c / 2], t[2 + c / 2], c), column(t[4 + c / 2], t[6 + c / 2], c));
                let low = _mm256_permute2f128_ps::<0x20>(top, bottom);
                let high = _mm256_permute2f128_ps::<0x31>(top, bottom);
                _mm256_storeu_ps(dst.add(c * dst_stride), low);
                _mm256_storeu_ps(dst.add((4 + c) * dst_stride), high);
            }
        }
    }
    #[inline(always)]
    fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn abs(a: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn round(a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn recip(a: __m256) -> __m256 {
        unsafe { _mm256_div_ps(_mm256_set1_ps(1.0), a) }
    }
    #[inline(always)]
    fn pow2(n: __m256) -> __m256 {
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    fn select_lt(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }
    #[inline(always)]
    fn any_gt(a: __m256, b: __m256) -> bool {
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) != 0 }
    }
    #[inline(always)]
    fn reduce_add(a: __m256) -> f32 {
        unsafe { fold(a, |x, y| x + y) }
    }
    #[inline(always)]
    fn reduce_max(a: __m256) -> f32 {
        unsafe { fold(a, f32::max) }
    }
    #[inline(always)]
    fn reduce_min(a: __m256) -> f32 {
        unsafe { fold(a, f32::min) }
    }
}
