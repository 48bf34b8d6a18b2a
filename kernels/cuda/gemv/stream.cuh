// What products of few rows share: loads of weights that are read once, copies to shared memory
// behind the multiprocessor's back, and the barrier of a cluster.
#include "common.cuh"

struct alignas(16) Words {
    uint32_t x, y, z, w;
};

// 16 bytes of weights. They are read once, so they pass by L1.
__device__ __forceinline__ Words load_once(const void* p) {
    Words v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

// Asks for `bytes` from `from` on, both multiples of 16, to be brought to the second-level cache.
__device__ __forceinline__ void bring_to_cache(const void* from, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#endif
}

// Keeps a value in a register: compilers would rather compute it anew wherever it is used.
__device__ __forceinline__ void keep(uint32_t& v) { asm volatile("" : "+r"(v)); }

// A constant that other blocks read as well.
__device__ __forceinline__ float load_constant(const float* p) {
    float v;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(v) : "l"(p));
    return v;
}

// Copies 16 bytes to shared memory, or zeros if `valid` is 0.
__device__ __forceinline__ void copy_16_async(uint32_t to, const void* from, uint32_t valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid)
                 : "memory");
}

__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most N groups of this thread's copies are under way.
template <int N>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// The same for a number known when it runs, of which more than four count as four.
__device__ __forceinline__ void wait_for_copies(int n) {
    switch (n) {
        case 0: return wait_for_copies<0>();
        case 1: return wait_for_copies<1>();
        case 2: return wait_for_copies<2>();
        case 3: return wait_for_copies<3>();
        default: return wait_for_copies<4>();
    }
}

__device__ __forceinline__ Words load_shared(uint32_t from) {
    Words v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from));
    return v;
}

__device__ __forceinline__ void store_shared_16(uint32_t to, uint16_t v) {
    asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(v) : "memory");
}

__device__ __forceinline__ void store_shared_8(uint32_t to, uint32_t v) {
    asm volatile("st.shared.u8 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}

// (column start, pointer, row stride) of up to four outputs that share the input; unused ones
// start at INT_MAX.
struct Outputs {
    T* to[4];
    int start[4];
    int stride[4];
};

// Where column n of row r goes.
__device__ __forceinline__ T* output_at(const Outputs& outputs, int r, int n) {
    T* to = outputs.to[0];
    int start = outputs.start[0], stride = outputs.stride[0];
#pragma unroll
    for (int i = 1; i < 4; ++i) {
        const bool here = n >= outputs.start[i];
        to = here ? outputs.to[i] : to;
        start = here ? outputs.start[i] : start;
        stride = here ? outputs.stride[i] : stride;
    }
    return to + (size_t)r * stride + (n - start);
}
