// Tensor cores on f16: D = A B + C of 16 x 8 x 16, and what makes its operands.
#include "common.cuh"

// A: rows g and g + 8 (g = lane / 4), columns 2t, 2t + 1 (t = lane % 4), then both rows at + 8.
struct __align__(16) Left { uint32_t word[4]; };

__device__ inline void multiply(float (&c)[4], const Left &a, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b0), "r"(b1));
}

// Two floats as f16, the first in the low half.
__device__ inline uint32_t pack_f16(float low, float high) {
    uint32_t word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

__device__ inline void unpack_f16(uint32_t word, float &low, float &high) {
    half_t a, b;
    a.bits = (uint16_t)word;
    b.bits = (uint16_t)(word >> 16);
    low = to_f32(a);
    high = to_f32(b);
}

// What `pack_f16` lost, as f16 again: hi + lo has 22 bits.
__device__ inline uint32_t pack_rest(uint32_t packed, float low, float high) {
    float a, b;
    unpack_f16(packed, a, b);
    return pack_f16(low - a, high - b);
}

// Four 8 x 8 matrices, whose rows lanes 0-7, 8-15, 16-23 and 24-31 point to.
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}

// The same, each matrix transposed.
__device__ inline void load_transposed(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}

template <int BYTES> __device__ inline void copy_async(void *to, const void *from) {
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(to)), "l"(from), "n"(BYTES) : "memory");
}

__device__ inline void copies_started() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }
