//! Integer dot products of unsigned weight bytes with signed activation bytes.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::Scalar;

/// Sums over four rows of K for sixteen columns: column j of a line of 64 weight bytes is bytes
/// 4j to 4j + 3. See [`Simd`](super::Simd) for the rule that makes the register-only ones safe.
pub(crate) trait Dot: Copy {
    /// 64 unsigned bytes.
    type W: Copy;
    /// Four signed bytes, spread over the columns.
    type A: Copy;
    /// Sixteen i32 sums.
    type Acc: Copy;

    fn zero() -> Self::Acc;
    /// # Safety
    /// 64 bytes can be read at `p`.
    unsafe fn load_w(p: *const u8) -> Self::W;
    /// Asks for the cache line of `p`, which may be any address.
    fn prefetch(p: *const u8);
    /// # Safety
    /// 64 bytes can be written at `p`.
    unsafe fn store_w(p: *mut u8, w: Self::W);
    /// # Safety
    /// 4 bytes can be read at `p`.
    unsafe fn load_a(p: *const i8) -> Self::A;
    /// The low nibble of each byte.
    fn low(w: Self::W) -> Self::W;
    /// The high nibble of each byte.
    fn high(w: Self::W) -> Self::W;
    /// 16 times the high nibble of each byte.
    fn high_in_place(w: Self::W) -> Self::W;
    /// acc + the four products of each column; wraps.
    fn dot(acc: Self::Acc, w: Self::W, a: Self::A) -> Self::Acc;
    fn add_acc(a: Self::Acc, b: Self::Acc) -> Self::Acc;
    /// a / 16, for multiples of 16.
    fn sixteenth(a: Self::Acc) -> Self::Acc;
    /// # Safety
    /// 16 values can be written at `p`.
    unsafe fn store_acc(p: *mut i32, acc: Self::Acc);
}

impl Dot for Scalar {
    type W = [u8; 64];
    type A = [i8; 4];
    type Acc = [i32; 16];

    #[inline(always)]
    fn zero() -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn load_w(p: *const u8) -> [u8; 64] {
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_w(p: *mut u8, w: [u8; 64]) {
        unsafe { p.cast::<[u8; 64]>().write_unaligned(w) }
    }
    #[inline(always)]
    unsafe fn load_a(p: *const i8) -> [i8; 4] {
        unsafe { p.cast::<[i8; 4]>().read_unaligned() }
    }
    #[inline(always)]
    fn low(w: [u8; 64]) -> [u8; 64] {
        w.map(|b| b & 15)
    }
    #[inline(always)]
    fn high(w: [u8; 64]) -> [u8; 64] {
        w.map(|b| b >> 4)
    }
    #[inline(always)]
    fn high_in_place(w: [u8; 64]) -> [u8; 64] {
        w.map(|b| b & 0xF0)
    }
    #[inline(always)]
    fn dot(acc: [i32; 16], w: [u8; 64], a: [i8; 4]) -> [i32; 16] {
        std::array::from_fn(|j| {
            (0..4).fold(acc[j], |s, i| s.wrapping_add(i32::from(w[4 * j + i]) * i32::from(a[i])))
        })
    }
    #[inline(always)]
    fn add_acc(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|j| a[j].wrapping_add(b[j]))
    }
    #[inline(always)]
    fn sixteenth(a: [i32; 16]) -> [i32; 16] {
        a.map(|x| x >> 4)
    }
    #[inline(always)]
    unsafe fn store_acc(p: *mut i32, acc: [i32; 16]) {
        unsafe { p.cast::<[i32; 16]>().write_unaligned(acc) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Dot;
    use crate::simd::{Avx2, Avx512};
    use std::arch::x86_64::*;

    impl Dot for Avx512 {
        type W = __m512i;
        type A = __m512i;
        type Acc = __m512i;

        #[inline(always)]
        fn zero() -> __m512i {
            unsafe { _mm512_setzero_si512() }
        }
        #[inline(always)]
        fn prefetch(p: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn load_w(p: *const u8) -> __m512i {
            unsafe { _mm512_loadu_si512(p.cast()) }
        }
        #[inline(always)]
        unsafe fn store_w(p: *mut u8, w: __m512i) {
            unsafe { _mm512_storeu_si512(p.cast(), w) }
        }
        #[inline(always)]
        unsafe fn load_a(p: *const i8) -> __m512i {
            unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        fn low(w: __m512i) -> __m512i {
            unsafe { _mm512_and_si512(w, _mm512_set1_epi8(15)) }
        }
        #[inline(always)]
        fn high(w: __m512i) -> __m512i {
            unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(w), _mm512_set1_epi8(15)) }
        }
        #[inline(always)]
        fn high_in_place(w: __m512i) -> __m512i {
            unsafe { _mm512_and_si512(w, _mm512_set1_epi8(-16)) }
        }
        #[inline(always)]
        fn dot(acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
            unsafe { _mm512_dpbusd_epi32(acc, w, a) }
        }
        #[inline(always)]
        fn add_acc(a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_add_epi32(a, b) }
        }
        #[inline(always)]
        fn sixteenth(a: __m512i) -> __m512i {
            unsafe { _mm512_srai_epi32::<4>(a) }
        }
        #[inline(always)]
        unsafe fn store_acc(p: *mut i32, acc: __m512i) {
            unsafe { _mm512_storeu_si512(p.cast(), acc) }
        }
    }

    /// Two halves of eight columns.
    type Pair = [__m256i; 2];

    // Functions and not closures: those are not sure to be inlined where the instruction set is.
    #[inline(always)]
    unsafe fn and(w: Pair, mask: __m256i) -> Pair {
        unsafe { [_mm256_and_si256(w[0], mask), _mm256_and_si256(w[1], mask)] }
    }

    #[inline(always)]
    unsafe fn dot_half(acc: __m256i, w: __m256i, a: Pair) -> __m256i {
        unsafe {
            let even = _mm256_and_si256(w, _mm256_set1_epi16(255));
            let odd = _mm256_srli_epi16::<8>(w);
            let sums = _mm256_add_epi32(_mm256_madd_epi16(even, a[0]), acc);
            _mm256_add_epi32(sums, _mm256_madd_epi16(odd, a[1]))
        }
    }

    /// Products of even and odd bytes are summed apart in 16-bit steps, since the one-instruction
    /// form (`maddubs`) saturates.
    impl Dot for Avx2 {
        type W = Pair;
        type A = Pair;
        type Acc = Pair;

        #[inline(always)]
        fn zero() -> Pair {
            unsafe { [_mm256_setzero_si256(); 2] }
        }
        #[inline(always)]
        fn prefetch(p: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn load_w(p: *const u8) -> Pair {
            unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
        }
        #[inline(always)]
        unsafe fn store_w(p: *mut u8, w: Pair) {
            unsafe {
                _mm256_storeu_si256(p.cast(), w[0]);
                _mm256_storeu_si256(p.add(32).cast(), w[1]);
            }
        }
        #[inline(always)]
        unsafe fn load_a(p: *const i8) -> Pair {
            unsafe {
                let a = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(a));
                [even, _mm256_srai_epi16::<8>(a)]
            }
        }
        #[inline(always)]
        fn low(w: Pair) -> Pair {
            unsafe { and(w, _mm256_set1_epi8(15)) }
        }
        #[inline(always)]
        fn high(w: Pair) -> Pair {
            unsafe {
                let shifted = [_mm256_srli_epi16::<4>(w[0]), _mm256_srli_epi16::<4>(w[1])];
                and(shifted, _mm256_set1_epi8(15))
            }
        }
        #[inline(always)]
        fn high_in_place(w: Pair) -> Pair {
            unsafe { and(w, _mm256_set1_epi8(-16)) }
        }
        #[inline(always)]
        fn dot(acc: Pair, w: Pair, a: Pair) -> Pair {
            unsafe { [dot_half(acc[0], w[0], a), dot_half(acc[1], w[1], a)] }
        }
        #[inline(always)]
        fn add_acc(a: Pair, b: Pair) -> Pair {
            unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        fn sixteenth(a: Pair) -> Pair {
            unsafe { [_mm256_srai_epi32::<4>(a[0]), _mm256_srai_epi32::<4>(a[1])] }
        }
        #[inline(always)]
        unsafe fn store_acc(p: *mut i32, acc: Pair) {
            unsafe {
                _mm256_storeu_si256(p.cast(), acc[0]);
                _mm256_storeu_si256(p.add(8).cast(), acc[1]);
            }
        }
    }
}
