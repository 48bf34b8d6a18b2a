// Copies to shared memory that run beside the arithmetic (sm_80 and later), and operands of
// `mma.sync` from there. Addresses of shared memory are 32-bit.
#pragma once
#include "common.cuh"

// Copies 16 bytes, or writes 16 zeros where `inside` is false.
__device__ __forceinline__ void copy_16(uint32_t to, const void *from, bool inside)
{
    int n = inside ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(n)
                 : "memory");
}

__device__ __forceinline__ void copies_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most PENDING committed groups are on their way.
template <int PENDING> __device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

__device__ __forceinline__ uint4 load_shared(uint32_t at)
{
    uint4 v;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
}

__device__ __forceinline__ uint2 load_shared_8(uint32_t at)
{
    uint2 v;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at) : "memory");
    return v;
}

__device__ __forceinline__ void store_shared(uint32_t at, uint4 v)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
}

// Four 8 × 16-byte matrices: lane i gives the address of a row, and gets bytes 4(i % 4).. of row
// i / 4 of each.
__device__ __forceinline__ uint4 load_matrices(uint32_t at)
{
    uint4 v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
}

// 16 bytes at `from` in global memory of which the first `left` are inside.
__device__ __forceinline__ uint4 load_bytes(const uint8_t *from, int left)
{
    uint32_t words[4] = {0, 0, 0, 0};
    for (int i = 0; i < 16; i++)
        if (i < left)
            words[i / 4] |= static_cast<uint32_t>(from[i]) << (8 * (i % 4));
    return make_uint4(words[0], words[1], words[2], words[3]);
}
