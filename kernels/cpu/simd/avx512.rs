//! The AVX-512 form: sixteen f32 values.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::Simd;
use std::arch::x86_64::*;

/// 512-bit vectors. See [`Simd`] for why the register-only operations count as safe.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Simd for Avx512 {
    type F = __m512;
    type M = __mmask16;
    const LANES: usize = 16;
    const TILE_VECTORS: usize = 4;

    #[inline(always)]
    fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn first(n: usize) -> __mmask16 {
        ((1u32 << n.min(16)) - 1) as __mmask16
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_m(p: *const f32, m: __mmask16) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(m, p) }
    }
    #[inline(always)]
    unsafe fn store_m(p: *mut f32, v: __m512, m: __mmask16) {
        unsafe { _mm512_mask_storeu_ps(p, m, v) }
    }
    #[inline(always)]
    unsafe fn load_i32(p: *const i32, minus: i32) -> __m512 {
        unsafe {
            let x = _mm512_loadu_si512(p.cast());
            _mm512_cvtepi32_ps(_mm512_sub_epi32(x, _mm512_set1_epi32(minus)))
        }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> (__m512, __m512) {
        // The permutation reads only the low four bits of each index, so it looks a nibble up
        // without a mask or a conversion.
        unsafe {
            let table = _mm512_setr_ps(
                0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.,
            );
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let high = _mm512_srli_epi32::<4>(bytes);
            (_mm512_permutexvar_ps(bytes, table), _mm512_permutexvar_ps(high, table))
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, v: __m512, n: usize) {
        unsafe { _mm512_mask_cvtepi32_storeu_epi8(p, Self::first(n), _mm512_cvtps_epi32(v)) }
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        unsafe {
            let mut t = [_mm512_setzero_ps(); 16];
            for i in (0..16).step_by(2) {
                let a = _mm512_loadu_ps(src.add(i * src_stride));
                let b = _mm512_loadu_ps(src.add((i + 1) * src_stride));
                t[i] = _mm512_unpacklo_ps(a, b);
                t[i + 1] = _mm512_unpackhi_ps(a, b);
            }
            let mut r = [_mm512_setzero_ps(); 16];
            for (i, r) in r.iter_mut().enumerate() {
                // Column i & 3 of each 128-bit quarter, for the rows 4·(i / 4) and on.
                let pair = (i & !3) + (i & 2) / 2;
                let (a, b) = (_mm512_castps_pd(t[pair]), _mm512_castps_pd(t[pair + 2]));
                let mixed =
                    if i & 1 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) };
                *r = _mm512_castpd_ps(mixed);
            }
            for c in 0..4 {
                let low01 = _mm512_shuffle_f32x4::<0x88>(r[c], r[4 + c]);
                let high01 = _mm512_shuffle_f32x4::<0xDD>(r[c], r[4 + c]);
                let low23 = _mm512_shuffle_f32x4::<0x88>(r[8 + c], r[12 + c]);
                let high23 = _mm512_shuffle_f32x4::<0xDD>(r[8 + c], r[12 + c]);
                let out = |q: usize| dst.add((4 * q + c) * dst_stride);
                _mm512_storeu_ps(out(0), _mm512_shuffle_f32x4::<0x88>(low01, low23));
                _mm512_storeu_ps(out(1), _mm512_shuffle_f32x4::<0x88>(high01, high23));
                _mm512_storeu_ps(out(2), _mm512_shuffle_f32x4::<0xDD>(low01, low23));
                _mm512_storeu_ps(out(3), _mm512_shuffle_f32x4::<0xDD>(high01, high23));
            }
        }
    }
    #[inline(always)]
    fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn abs(a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    fn round(a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn recip(a: __m512) -> __m512 {
        unsafe {
            let y = _mm512_rcp14_ps(a);
            _mm512_fmadd_ps(y, _mm512_fnmadd_ps(a, y, _mm512_set1_ps(1.0)), y)
        }
    }
    #[inline(always)]
    fn pow2(n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }
    #[inline(always)]
    fn select_lt(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    fn any_gt(a: __m512, b: __m512) -> bool {
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) != 0 }
    }
    #[inline(always)]
    fn reduce_add(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    fn reduce_max(a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    fn reduce_min(a: __m512) -> f32 {
        unsafe { _mm512_reduce_min_ps(a) }
    }
}
