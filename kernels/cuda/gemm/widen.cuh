// Int8 codes as 16-bit floats, and the products of those.
#pragma once
#include "common.cuh"

template <typename E> struct Arithmetic;

template <> struct Arithmetic<half_t> {
    // Four int8 as two pairs: 1024 + 128 + v is the half 0x6400 | (v + 128).
    static __device__ __forceinline__ void widen(uint32_t codes, uint32_t &low, uint32_t &high)
    {
        const uint32_t u = codes ^ 0x80808080u, offset = 0x64806480u;
        asm("sub.f16x2 %0, %1, %2;"
            : "=r"(low)
            : "r"(__byte_perm(u, 0x64646464u, 0x4140)), "r"(offset));
        asm("sub.f16x2 %0, %1, %2;"
            : "=r"(high)
            : "r"(__byte_perm(u, 0x64646464u, 0x4342)), "r"(offset));
    }
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t *a, uint2 b)
    {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
    }
#ifdef SUMS64
    template <int N>
    static __device__ __forceinline__ void wgmma(float (&d)[N], const uint32_t *a, uint64_t b,
                                                 int add)
    {
        wgmma_f16(d, a, b, add);
    }
#endif
};

template <> struct Arithmetic<bf16_t> {
    // 2^23 + 128 + v is the float 0x4B000000 | (v + 128); v needs 8 bits, which bf16 has.
    static __device__ __forceinline__ uint32_t float_at(uint32_t u, uint32_t selector)
    {
        return __float_as_uint(__uint_as_float(__byte_perm(u, 0x4B000000u, selector)) -
                               8388736.0f);
    }
    static __device__ __forceinline__ void widen(uint32_t codes, uint32_t &low, uint32_t &high)
    {
        const uint32_t u = codes ^ 0x80808080u;
        low = __byte_perm(float_at(u, 0x7440), float_at(u, 0x7441), 0x7632);
        high = __byte_perm(float_at(u, 0x7442), float_at(u, 0x7443), 0x7632);
    }
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t *a, uint2 b)
    {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
    }
#ifdef SUMS64
    template <int N>
    static __device__ __forceinline__ void wgmma(float (&d)[N], const uint32_t *a, uint64_t b,
                                                 int add)
    {
        wgmma_bf16(d, a, b, add);
    }
#endif
};
