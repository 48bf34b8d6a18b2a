// Hopper's matrix products of a warpgroup: 64 rows from registers, laid out as `multiply`'s tiles, times a right
// operand in shared memory.
#include "common.cuh"

#ifndef WGMMA
#define WGMMA 0
#endif

#if WGMMA

// A right operand has blocks of 64 columns; in them rows (k) of 128 bytes, whose 16-byte pieces are permuted by the
// row's number modulo 8. Blocks begin at multiples of 1024 bytes, and have `height` rows each.
__device__ inline uint64_t describe(uint32_t block, int height) {
    // Bits 0: address / 16; 16: distance of blocks / 16; 32: distance of 8 rows / 16; 62: 128-byte swizzle.
    return (uint64_t)((block & 0x3FFFF) >> 4) | (uint64_t)(height * 128 >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | 1ull << 62;
}

__device__ inline void products_start() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void products_end() {
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
}
// What was written to shared memory may be read by products, after a barrier.
__device__ inline void writes_are_for_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The first N / 8 tiles of d, plus a times 16 rows of a block; `add` false begins anew.
template <int N> struct Product;

#define TILE(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define LEFT "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3])

template <> struct Product<16> {
    __device__ static inline void run(float (*d)[4], const Left &a, uint64_t b, int add) {
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %13, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9,%10,%11}, %12, p, 1, 1, 1;\n}"
                     : TILE(0), TILE(1) : LEFT, "l"(b), "r"(add));
    }
};
template <> struct Product<32> {
    __device__ static inline void run(float (*d)[4], const Left &a, uint64_t b, int add) {
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, "
                     "{%16,%17,%18,%19}, %20, p, 1, 1, 1;\n}"
                     : TILE(0), TILE(1), TILE(2), TILE(3) : LEFT, "l"(b), "r"(add));
    }
};
template <> struct Product<48> {
    __device__ static inline void run(float (*d)[4], const Left &a, uint64_t b, int add) {
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %29, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n48k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                     "%16,%17,%18,%19,%20,%21,%22,%23}, {%24,%25,%26,%27}, %28, p, 1, 1, 1;\n}"
                     : TILE(0), TILE(1), TILE(2), TILE(3), TILE(4), TILE(5) : LEFT, "l"(b), "r"(add));
    }
};
template <> struct Product<64> {
    __device__ static inline void run(float (*d)[4], const Left &a, uint64_t b, int add) {
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                     "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}"
                     : TILE(0), TILE(1), TILE(2), TILE(3), TILE(4), TILE(5), TILE(6), TILE(7) : LEFT, "l"(b), "r"(add));
    }
};
template <> struct Product<128> {
    __device__ static inline void run(float (*d)[4], const Left &a, uint64_t b, int add) {
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                     "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,"
                     "%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
                     "{%64,%65,%66,%67}, %68, p, 1, 1, 1;\n}"
                     : TILE(0), TILE(1), TILE(2), TILE(3), TILE(4), TILE(5), TILE(6), TILE(7),
                       TILE(8), TILE(9), TILE(10), TILE(11), TILE(12), TILE(13), TILE(14), TILE(15) : LEFT, "l"(b), "r"(add));
    }
};

#undef TILE
#undef LEFT

// d (+)= a times 16 rows, `rows` being where they begin in the first of the blocks.
template <int COLUMNS, int FIRST = 0> __device__ inline void multiply_rows(float (*d)[4], const Left &a, uint32_t rows, int height, int add) {
    constexpr int REST = COLUMNS - FIRST;
    constexpr int N = REST >= 128 ? 128 : REST >= 64 ? 64 : REST;
    Product<N>::run(d + FIRST / 8, a, describe(rows + FIRST / 64 * height * 128, height), add);
    if constexpr (REST > N) multiply_rows<COLUMNS, FIRST + N>(d, a, rows, height, add);
}

#else

__device__ inline void writes_are_for_products() {}

#endif
